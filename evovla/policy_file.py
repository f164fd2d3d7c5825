"""Policy files of the vision-language-action policy: written, trained on, and the ONNX in them.

The file is that of :mod:`learning.policy_file`. Training goes on from the safetensors; a robot runs
the ONNX, see :mod:`evovla.actor`, which needs no torch.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learning.policy_file import PolicyFileError, read_policy, write_policy_file

from .policy import VLAConfig, VLAPolicy, config_json

KIND = "vla"
_OPSET = 17


def save_vla(
    folder: str | os.PathLike[str], policy: VLAPolicy, *, observation: dict[str, Any],
    action: dict[str, Any], recipe: dict[str, Any], seeds: list[int], evaluation: dict[str, Any],
    rate_hz: float,
) -> Path:  # fmt: skip
    """Write a policy file; an older one in its place is replaced.

    Args: as for :func:`learning.policy_file.save_policy`. The "dim" of the action is that of one
    action, not of a chunk.

    Raises:
        ValueError: a spec does not fit the policy, a weight is not finite, or a value is not JSON.
    """
    c = policy.config
    for name, spec, dim in (
        ("observation", observation, c.obs_dim),
        ("action", action, c.action_dim),
    ):
        if spec.get("dim") != dim:
            raise ValueError(f'{name}["dim"] must be {dim} as the policy, got {spec.get("dim")!r}')
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"rate_hz must be > 0, got {rate_hz}")
    tensors = {k: np.ascontiguousarray(v.cpu().numpy()) for k, v in policy.state_dict().items()}
    network = config_json(c) | {
        "kind": KIND, "obs_dim": c.obs_dim, "action_dim": c.action_dim,
        "memory_dim": policy.memory_dim,
    }  # fmt: skip
    manifest = {
        "network": network, "observation": observation, "action": action, "rate_hz": rate_hz,
        "recipe": recipe, "seeds": list(seeds), "evaluation": evaluation,
    }  # fmt: skip
    return write_policy_file(folder, tensors, onnx_of(policy), manifest)


def load_vla(folder: str | os.PathLike[str]) -> VLAPolicy:
    """The policy with its critic and normalizer, to train on or to evaluate.

    Raises:
        PolicyFileError: the file is damaged, or of another kind of policy.
    """
    manifest, tensors = read_policy(folder)
    network = dict(manifest["network"])
    if network.pop("kind", None) != KIND:
        raise PolicyFileError(f"{folder}: must be a policy of kind {KIND!r}, it is another one")
    network.pop("memory_dim", None)
    try:
        policy = VLAPolicy(VLAConfig(**network))
        policy.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise PolicyFileError(f"{folder}: weights must fit the manifest: {error}") from error
    return policy


def onnx_of(policy: VLAPolicy) -> bytes:
    """The policy without noise as an ONNX model.

    Inputs: "state" (B, obs_dim) float32; with cameras "frames" (B, V, H, W, 3) uint8; with a memory
    "memory" (B, memory_dim) float32, zeros at the start of an episode. Outputs: "chunk" (B, C * A)
    in [-1, 1], and with a memory "memory_after".
    """
    c, rows = policy.config, 2
    given: list[Tensor] = [torch.zeros(rows, c.obs_dim)]
    names = ["state"]
    if c.views:
        given.append(torch.zeros(rows, len(c.views), c.side, c.side, 3, dtype=torch.uint8))
        names.append("frames")
    gets = ["chunk"]
    if policy.memory_dim:
        given.append(torch.zeros(rows, policy.memory_dim))
        names.append("memory")
        gets.append("memory_after")
    file, device = io.BytesIO(), policy.log_std.device
    module = _Acting(policy.cpu()).eval()
    try:
        with torch.no_grad():
            torch.onnx.export(
                module, tuple(given), file,  # type: ignore[arg-type]
                input_names=names, output_names=gets, opset_version=_OPSET,
                dynamic_axes={name: {0: "B"} for name in (*names, *gets)}, dynamo=False,
            )  # fmt: skip
    finally:
        policy.to(device)
    return file.getvalue()


class _Acting(nn.Module):
    """Raw observations in, chunk and memory out; texts are worked out beforehand."""

    mean: Tensor
    scale: Tensor
    told: Tensor

    def __init__(self, policy: VLAPolicy) -> None:
        super().__init__()
        self.policy = policy
        mean, scale = policy.obs_mean.float().clone(), policy.obs_scale.clone()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("told", policy.told().detach().clone())
        stage = torch.arange(policy.obs_dim) == policy.config.stage_column % policy.obs_dim
        self.register_buffer("stage", stage)

    def forward(self, state: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        policy = self.policy
        white = ((state - self.mean) * self.scale).clamp(-10.0, 10.0)
        x: Any = torch.where(self.stage, state, white)  # type: ignore[arg-type]
        if policy.config.views:
            x = {"state": x, "frames": more[0]}
        memory = more[-1] if policy.memory_dim else state[:, :0]
        chunk, after, _ = policy.forward(x, memory, self.told)
        return (chunk, after) if policy.memory_dim else (chunk,)
