"""Policy files: the one thing that crosses from training to a robot.

A policy file is a folder of exactly three files: ``policy.safetensors`` (what training goes on
from), ``policy.onnx`` (what a robot runs) and ``manifest.json`` (what they see, give and were made
by, with the sha256 of every file and of itself). Nothing is ever unpickled; a file too many, a
changed byte or an unknown schema is refused. :class:`OnnxPolicy` needs numpy and onnxruntime only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .ppo import ActorCritic

SCHEMA_VERSION = 1
MAX_BYTES = 256 * 2**20
"""No file of a policy may be larger."""

_MANIFEST, _WEIGHTS, _ONNX = "manifest.json", "policy.safetensors", "policy.onnx"
_FORMAT = f"a policy is exactly {_MANIFEST}, {_ONNX} and {_WEIGHTS}, no pickle and no other file"
_OPSET, _IR = 17, 8  # old enough for the onnxruntime of a robot's distribution
_CLIP = 10.0


class PolicyFileError(ValueError):
    """The folder is not an intact policy file of this version, or not the one that was wanted."""


def save_policy(
    folder: str | os.PathLike[str],
    net: ActorCritic,
    *,
    observation: dict[str, Any],
    action: dict[str, Any],
    recipe: dict[str, Any],
    seeds: list[int],
    evaluation: dict[str, Any],
    rate_hz: float,
) -> Path:
    """Write ``net`` as a policy file; an older policy file in its place is replaced.

    Args:
        observation, action: specs with their length under "dim", and names, units and frames.
        recipe: how it was trained, git revision included.
        evaluation: results, as JSON; numbers that are not finite are written as null.
        rate_hz: how often the policy wants to be called.

    Raises:
        ValueError: a spec does not fit the network, a weight is not finite, or a value is not JSON.
        FileExistsError: the folder holds something else than a policy file.
    """
    for name, spec, dim in (
        ("observation", observation, net.obs_dim),
        ("action", action, net.action_dim),
    ):
        if spec.get("dim") != dim:
            raise ValueError(f'{name}["dim"] must be {dim} as the network, got {spec.get("dim")!r}')
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"rate_hz must be > 0, got {rate_hz}")
    tensors = {k: np.ascontiguousarray(v.numpy()) for k, v in net.state_dict().items()}
    manifest = {
        "network": {
            "obs_dim": net.obs_dim,
            "action_dim": net.action_dim,
            "hidden": list(net.hidden),
            "activation": "tanh",
        },
        "normalizer": {
            "mean": net.obs_mean.tolist(),
            "scale": net.obs_scale.double().tolist(),
            "clip": _CLIP,
        },
        "observation": observation,
        "action": action,
        "rate_hz": rate_hz,
        "recipe": recipe,
        "seeds": list(seeds),
        "evaluation": evaluation,
    }
    return write_policy_file(folder, tensors, _onnx(net), manifest)


def write_policy_file(
    folder: str | os.PathLike[str], tensors: dict[str, NDArray[Any]], onnx: bytes,
    manifest: dict[str, Any],
) -> Path:  # fmt: skip
    """Write a policy of any kind: what it learned, what a robot runs, and what it says of itself.

    Args:
        manifest: "network" with "obs_dim" and "action_dim", "observation" and "action" with the
            same under "dim", "recipe", "seeds", "evaluation" and whatever else.

    Raises:
        ValueError: a weight is not finite, or a value is not JSON.
        FileExistsError: the folder holds something else than a policy file.
    """
    from safetensors.numpy import save as save_tensors

    bad = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if bad:
        raise ValueError(f"net must have finite weights, got NaN or infinity in {', '.join(bad)}")
    files = {_WEIGHTS: save_tensors(tensors), _ONNX: onnx}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **manifest,
        "evaluation": _nulled(manifest["evaluation"]),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "manifest_sha256": "",
    }
    try:
        manifest["manifest_sha256"] = _digest(manifest)
        files[_MANIFEST] = _dump(manifest)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the manifest must be plain JSON: {error}") from error
    return _publish(Path(folder), files)


def verify_policy(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Check every byte of a policy file and return its manifest.

    Raises:
        PolicyFileError: a file is missing, changed or one too many, or the schema is unknown.
    """
    return _read(Path(folder))[0]


def load_policy(folder: str | os.PathLike[str]) -> ActorCritic:
    """The network with its critic and normalizer, to train on or to evaluate (needs torch).

    Raises:
        PolicyFileError: as :func:`verify_policy`, or the weights do not fit the manifest.
    """
    manifest, tensors = read_policy(folder)
    import torch

    from .ppo import ActorCritic

    network = manifest["network"]
    try:
        net = ActorCritic(network["obs_dim"], network["action_dim"], tuple(network["hidden"]))
        net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()})
    except Exception as error:  # torch's errors and KeyError have no common base
        raise PolicyFileError(f"{folder}: {_WEIGHTS} does not fit the manifest: {error}") from error
    return net


def read_policy(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Manifest and weights of a policy file of any kind.

    Raises:
        PolicyFileError: as :func:`verify_policy`, or the weights are no safetensors or not finite.
    """
    from safetensors.numpy import load as load_tensors

    manifest, files = _read(Path(folder))
    try:
        tensors = load_tensors(files[_WEIGHTS])
    except Exception as error:  # safetensors raises its own and others
        raise PolicyFileError(f"{folder}: {_WEIGHTS} does not fit the manifest: {error}") from error
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise PolicyFileError(f"{folder}: {_WEIGHTS} holds NaN or infinity")
    return manifest, tensors


class OnnxPolicy:
    """A policy file run by onnxruntime on one thread.

    Args:
        folder: a policy file.
        expect_observation: the observation spec that the caller builds; must equal the manifest's.

    Raises:
        PolicyFileError: as :func:`verify_policy`, or the observation spec is another one.
    """

    def __init__(
        self, folder: str | os.PathLike[str], expect_observation: dict[str, Any] | None = None
    ) -> None:
        self.manifest, self._session = open_session(folder, expect_observation)
        self.obs_dim = int(self.manifest["network"]["obs_dim"])
        self.action_dim = int(self.manifest["network"]["action_dim"])
        puts, gets = self._session.get_inputs(), self._session.get_outputs()
        widths = [p.shape[-1] for p in (*puts, *gets)]
        if widths != [self.obs_dim, self.action_dim]:
            want = [self.obs_dim, self.action_dim]
            raise PolicyFileError(
                f"{folder}: {_ONNX} must map {want[0]} to {want[1]}, got {widths}"
            )
        self._input = puts[0].name

    def __call__(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Deterministic actions: (B, D) observations -> (B, A) float32 in [-1, 1].

        A row that is not finite gives NaN actions, which no command converter may let through.
        """
        obs = np.ascontiguousarray(obs, dtype=np.float32)
        if obs.ndim != 2 or obs.shape[1] != self.obs_dim:
            raise ValueError(f"obs must be (B, {self.obs_dim}), got {obs.shape}")
        action: NDArray[np.float32] = self._session.run(None, {self._input: obs})[0]
        # Clip may turn a NaN into a bound
        return np.where(np.isfinite(obs).all(axis=1, keepdims=True), action, np.float32(np.nan))


def open_session(
    folder: str | os.PathLike[str], expect_observation: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Any]:
    """Manifest and onnxruntime session, on one thread, of a policy file of any kind.

    Raises:
        PolicyFileError: as :func:`verify_policy`, or the observation spec is another one.
    """
    manifest, files = _read(Path(folder))
    if expect_observation is not None:
        _compare(folder, json.loads(json.dumps(expect_observation)), manifest)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            files[_ONNX], options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base
        raise PolicyFileError(f"{folder}: {_ONNX} is no ONNX that runs: {error}") from error
    return manifest, session


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Checked manifest and file contents; what is checked is what is used."""
    wanted = {_MANIFEST, _WEIGHTS, _ONNX}
    if not folder.is_dir():
        raise PolicyFileError(f"{folder}: a policy folder is wanted, there is none; {_FORMAT}")
    found = {path.name for path in folder.iterdir()}
    if found != wanted:
        missing, extra = sorted(wanted - found), sorted(found - wanted)
        raise PolicyFileError(f"{folder}: {_FORMAT}; missing: {missing}, too many: {extra}")
    files: dict[str, bytes] = {}
    for name in sorted(wanted):
        path = folder / name
        try:
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                raise PolicyFileError(f"{path}: a file of at most {MAX_BYTES} bytes is wanted")
            files[name] = path.read_bytes()
        except OSError as error:
            raise PolicyFileError(f"{path}: cannot be read: {error}") from error
    try:
        text = files.pop(_MANIFEST)
        manifest = json.loads(text)
        version = manifest["schema_version"]
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise PolicyFileError(
                f"{folder}: schema_version must be {SCHEMA_VERSION}, got {version!r}"
            )
        intact = _digest({**manifest, "manifest_sha256": ""}) == manifest["manifest_sha256"]
        if not intact or text != _dump(manifest):
            raise PolicyFileError(f"{folder}: {_MANIFEST} was changed, its sha256 differs")
        for name, data in files.items():
            if hashlib.sha256(data).hexdigest() != manifest["sha256"][name]:
                raise PolicyFileError(f"{folder}: {name} was changed, its sha256 differs")
        for part in ("observation", "action", "network"):
            if not isinstance(manifest[part], dict):
                raise PolicyFileError(f"{folder}: {_MANIFEST} must hold an object {part!r}")
        dims = [manifest["network"][key] for key in ("obs_dim", "action_dim")]
        if dims != [manifest["observation"]["dim"], manifest["action"]["dim"]]:
            raise PolicyFileError(f"{folder}: network and specs must agree on sizes, got {dims}")
    except PolicyFileError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PolicyFileError(
            f"{folder}: {_MANIFEST} is not a policy's ({reason}); {_FORMAT}"
        ) from error
    return manifest, files


def _compare(folder: str | os.PathLike[str], want: Any, manifest: dict[str, Any]) -> None:
    got = manifest["observation"]
    if want != got:
        keys = sorted(k for k in {*want, *got} if want.get(k) != got.get(k))
        raise PolicyFileError(
            f"{folder}: the observation spec differs in {', '.join(keys)}: "
            f"wanted {[want.get(k) for k in keys]}, got {[got.get(k) for k in keys]}"
        )


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulled(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nulled(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _dump(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_dump(manifest)).hexdigest()


def _publish(folder: Path, files: dict[str, bytes]) -> Path:
    """Write the files aside, sync them, and rename the whole folder into place."""
    old = folder.exists()
    if old and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(files)):
        raise FileExistsError(f"folder must be new or a policy file, got {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = aside / "new"
        new.mkdir()
        for name, data in files.items():
            with open(new / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if old:
            os.replace(folder, aside / "old")
        os.replace(new, folder)
        handle = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _onnx(net: ActorCritic) -> bytes:
    """The deterministic policy as an ONNX model, (B, obs_dim) float32 -> (B, action_dim)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from torch import nn

    constants = {
        "mean": net.obs_mean.float().numpy(),
        "scale": net.obs_scale.numpy(),
        "low": np.float32(-_CLIP), "high": np.float32(_CLIP),
        "minus": np.float32(-1), "plus": np.float32(1),
    }  # fmt: skip
    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["white"]),
        helper.make_node("Clip", ["white", "low", "high"], ["x0"]),
    ]
    layers = [layer for layer in net.actor if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(layers):
        constants[f"w{i}"] = layer.weight.detach().numpy()
        constants[f"b{i}"] = layer.bias.detach().numpy()
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"w{i}", f"b{i}"], [f"y{i}"], transB=1))
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Tanh", [f"y{i}"], [f"x{i + 1}"]))
    nodes.append(helper.make_node("Clip", [f"y{len(layers) - 1}", "minus", "plus"], ["action"]))
    graph = helper.make_graph(
        nodes, "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["B", net.obs_dim])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["B", net.action_dim])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
