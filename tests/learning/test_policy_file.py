"""Policy files: the robot runs what was trained, or refuses."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from learning import policy_file
from learning.policy_file import (
    OnnxPolicy,
    PolicyFileError,
    load_policy,
    save_policy,
    verify_policy,
)  # fmt: skip
from learning.ppo import ActorCritic

OBSERVATION = {"dim": 7, "parts": [{"name": "scan", "shape": [7], "unit": "m", "frame": "lidar"}]}
READERS = (verify_policy, load_policy, OnnxPolicy)


@pytest.fixture
def net() -> ActorCritic:
    net = ActorCritic(7, 2, (16, 16), seed=3)
    net.update_normalizer(torch.randn(500, 7) * torch.logspace(-3, 3, 7) + 5)
    with torch.no_grad():
        net.actor[-1].weight.mul_(100)  # so that actions reach the bounds
    return net


def write(folder: Path, net: ActorCritic, **change: object) -> Path:
    content = {
        "observation": OBSERVATION, "action": {"dim": 2, "limits": {"v_max": 1.2}},
        "recipe": {"name": "test", "git": "0" * 40}, "seeds": [0], "evaluation": {"success": 0.9},
        "rate_hz": 20.0,
    }  # fmt: skip
    return save_policy(folder, net, **{**content, **change})


@pytest.fixture
def folder(tmp_path, net) -> Path:
    return write(tmp_path / "policy", net)


def rewrite(folder: Path, **change: object) -> None:
    """Change the manifest as somebody would who also fixes its digest."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **change, "manifest_sha256": ""}
    manifest["manifest_sha256"] = policy_file._digest(manifest)
    path.write_bytes(policy_file._dump(manifest))


def refused(folder: Path, words: str) -> None:
    for reader in READERS:
        with pytest.raises(PolicyFileError, match=words):
            reader(folder)


@pytest.mark.parametrize("hidden", [(16, 16), (5,), (8, 16, 32)])
def test_onnxruntime_and_torch_agree(tmp_path, hidden):
    net = ActorCritic(7, 2, hidden, seed=1)
    net.update_normalizer(torch.randn(500, 7) * torch.logspace(-3, 3, 7) + 5)
    with torch.no_grad():
        net.actor[-1].weight.mul_(100)
    obs = (np.random.default_rng(0).normal(size=(1000, 7)) * np.logspace(-3, 4, 7) + 5).astype("f4")
    policy = OnnxPolicy(write(tmp_path / "p", net), OBSERVATION)
    got = policy(obs)
    assert got.dtype == np.float32 and got.shape == (1000, 2)
    assert np.abs(got - net.act(obs)).max() < 1e-5
    assert np.abs(got).max() == 1 and np.abs(got).min() < 0.9  # bounds reached, not everywhere
    assert np.abs(policy(obs[:1]) - got[:1]).max() < 1e-6
    assert policy.manifest["action"]["limits"] == {"v_max": 1.2}


def test_training_goes_on_from_the_very_same_network(folder, net):
    again = load_policy(folder)
    for (name, a), b in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), name


def test_saving_again_replaces_the_policy_but_never_other_files(folder, net, tmp_path):
    write(folder, net, seeds=[8])
    assert verify_policy(folder)["seeds"] == [8]
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        write(folder, net)
    assert (folder / "notes.txt").read_text() == "mine"


def test_no_flipped_byte_passes(folder):
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for at in [*range(0, len(whole), max(1, len(whole) // 150)), len(whole) - 1]:
            flipped = bytearray(whole)
            flipped[at] ^= 1
            file.write_bytes(flipped)
            with pytest.raises(PolicyFileError):
                verify_policy(folder)
        file.write_bytes(whole + b" ")
        refused(folder, "changed|manifest")
        file.write_bytes(whole)
    verify_policy(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_an_unknown_schema_is_refused(folder, version):
    rewrite(folder, schema_version=version)
    refused(folder, "schema_version must be 1")


def test_another_observation_spec_is_refused(folder):
    other = {**OBSERVATION, "parts": [{**OBSERVATION["parts"][0], "unit": "cm"}]}
    with pytest.raises(PolicyFileError, match="observation spec differs in parts"):
        OnnxPolicy(folder, expect_observation=other)
    OnnxPolicy(folder, expect_observation=json.loads(json.dumps(OBSERVATION)))


def test_a_pickle_beside_the_policy_is_refused_unread(folder, tmp_path):
    canary = tmp_path / "canary"

    class Canary:
        def __reduce__(self):
            return (Path.touch, (canary,))

    (folder / "optimizer.pt").write_bytes(pickle.dumps(Canary()))
    refused(folder, r"no pickle.*too many: \['optimizer.pt'\]")
    (folder / "optimizer.pt").unlink()
    for name in ("policy.safetensors", "policy.onnx"):  # with digests that fit
        whole = (folder / name).read_bytes()
        torch.save(Canary(), folder / name)
        manifest = json.loads((folder / "manifest.json").read_text())
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        rewrite(folder, sha256={**manifest["sha256"], name: digest})
        with pytest.raises(PolicyFileError, match=name):
            (load_policy if "tensors" in name else OnnxPolicy)(folder)
        (folder / name).write_bytes(whole)
        rewrite(folder, sha256=manifest["sha256"])
    assert not canary.exists()


@pytest.mark.parametrize("name", ["policy.safetensors", "policy.onnx", "manifest.json"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    refused(folder, rf"missing: \['{name}'\]")
    refused(folder / "nowhere", "a policy folder is wanted")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"schema_version": 1}', "[" * 100_000, "\xff", '{"a": NaN}']
)
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    refused(folder, "changed|manifest")


def test_a_network_of_another_size_is_refused(folder, net):
    manifest = json.loads((folder / "manifest.json").read_text())
    rewrite(folder, network={**manifest["network"], "obs_dim": 8})
    refused(folder, "must agree on sizes")
    rewrite(folder, network={**manifest["network"], "hidden": [16, 8]})
    with pytest.raises(PolicyFileError, match="does not fit"):
        load_policy(folder)


def test_saving_refuses_what_could_not_be_used(tmp_path, net):
    with pytest.raises(ValueError, match=r'observation\["dim"\] must be 7'):
        write(tmp_path / "p", net, observation={"dim": 8})
    with pytest.raises(ValueError, match="rate_hz must be > 0"):
        write(tmp_path / "p", net, rate_hz=0.0)
    with pytest.raises(ValueError, match="plain JSON"):
        write(tmp_path / "p", net, recipe={"x": object()})
    with torch.no_grad():
        net.actor[0].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="finite weights.*actor.0.weight"):
        write(tmp_path / "p", net)
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_no_number_become_null(tmp_path, net):
    folder = write(tmp_path / "p", net, evaluation={"path": [math.nan, 1.0]})
    assert verify_policy(folder)["evaluation"] == {"path": [None, 1.0]}


def test_bad_observations_give_nan_actions_and_bad_shapes_an_error(folder):
    policy = OnnxPolicy(folder)
    obs = np.zeros((3, 7), np.float32)
    obs[0, 2], obs[2, 0] = np.nan, np.inf
    got = policy(obs)
    assert np.isnan(got[[0, 2]]).all() and np.isfinite(got[1]).all()
    for bad in (obs[:, :6], obs[0]):
        with pytest.raises(ValueError, match=r"obs must be \(B, 7\)"):
            policy(bad)


def test_a_robot_needs_neither_torch_nor_onnx_nor_safetensors(folder):
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"torch", "onnx", "safetensors", "stable_baselines3"}}:
            raise ModuleNotFoundError(f"blocked {{name}}")
sys.meta_path.insert(0, Block())
import numpy as np
from learning.policy_file import OnnxPolicy, verify_policy
verify_policy({str(folder)!r})
assert OnnxPolicy({str(folder)!r})(np.zeros((2, 7), np.float32)).shape == (2, 2)
"""
    root = Path(policy_file.__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
