"""Acting step by step with a carried memory, in simulation and on a robot: numpy, no torch.

:class:`OnnxVLA` runs a policy file; :class:`Actor` carries the memory and plays chunks, of it or of
a :class:`evovla.policy.VLAPolicy`.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from learning.policy_file import PolicyFileError, open_session

Floats = NDArray[np.float32]
Arrays = Floats | dict[str, NDArray[Any]]
"""(N, obs_dim) float32, or with cameras {"state": that, "frames": (N, V, H, W, 3) uint8}."""


class Chunker(Protocol):
    """What gives chunks of actions."""

    memory_dim: int

    def chunk(self, obs: Arrays, memory: Floats) -> tuple[Floats, Floats]:
        """Raw observations and memory (N, memory_dim) -> chunks (N, C, A) and memory."""
        ...


class OnnxVLA:
    """A policy file run by onnxruntime on one thread.

    Args:
        folder: a policy file.
        expect_observation: the observation spec that the caller builds; must equal the manifest's.

    Raises:
        PolicyFileError: the file is damaged, of another kind, or the observation is another one.
    """

    def __init__(
        self, folder: str | os.PathLike[str], expect_observation: dict[str, Any] | None = None
    ) -> None:
        self.manifest, self._session = open_session(folder, expect_observation)
        network = self.manifest["network"]
        try:
            self.obs_dim, self.action_dim = int(network["obs_dim"]), int(network["action_dim"])
            self.memory_dim, self.size = int(network["memory_dim"]), int(network["chunk"])
            self.execute, side = int(network["execute"]), int(network["side"])
            views = tuple(network["views"])
        except (KeyError, TypeError, ValueError) as error:
            raise PolicyFileError(f"{folder}: must be a vision-language-action policy") from error
        self.frames = (len(views), side, side, 3) if views else ()
        wants = ["state", *(["frames"] if views else []), *(["memory"] if self.memory_dim else [])]
        found = [put.name for put in self._session.get_inputs()]
        if found != wants:
            raise PolicyFileError(f"{folder}: policy.onnx must take {wants}, it takes {found}")

    def chunk(self, obs: Arrays, memory: Floats) -> tuple[Floats, Floats]:
        """See :class:`Chunker`. A row whose numbers are not finite gives NaN actions, which no
        command converter may let through, and remembers nothing new."""
        state = np.ascontiguousarray(obs["state"] if isinstance(obs, dict) else obs, np.float32)
        if state.ndim != 2 or state.shape[1] != self.obs_dim:
            raise ValueError(f"state must be (N, {self.obs_dim}), got {state.shape}")
        puts: dict[str, NDArray[Any]] = {"state": state}
        if self.frames:
            frames = obs["frames"] if isinstance(obs, dict) else None
            want = (len(state), *self.frames)
            if frames is None or frames.shape != want or frames.dtype != np.uint8:
                got = "none" if frames is None else f"{frames.shape} {frames.dtype}"
                raise ValueError(f"frames must be {want} uint8, got {got}")
            puts["frames"] = np.ascontiguousarray(frames)
        if self.memory_dim:
            puts["memory"] = memory
        chunk, *after = self._session.run(None, puts)
        good = np.isfinite(state).all(axis=1, keepdims=True)
        chunk = np.where(good, chunk, np.float32(np.nan))
        kept = np.where(good, after[0], memory) if after else memory
        return chunk.reshape(len(state), self.size, self.action_dim), kept


class Actor:
    """Carries the memory of N rows and plays their chunks.

    Args:
        net: gives the chunks.
        num_envs: N.
        execute: actions of a chunk that are carried out before the next look: 1 looks at every
            step and executes the first action, as the paper does.
    """

    def __init__(self, net: Chunker, num_envs: int, execute: int = 1) -> None:
        if num_envs < 1 or execute < 1:
            raise ValueError(f"num_envs and execute must be >= 1, got {num_envs} and {execute}")
        self.net, self.execute = net, execute
        self.memory = np.zeros((num_envs, net.memory_dim), np.float32)
        self._chunk: Floats | None = None
        self._played = np.full(num_envs, execute)

    def __call__(self, obs: Arrays) -> Floats:
        """(N, A) actions in [-1, 1] for raw observations of all rows."""
        look = self._played >= self.execute
        if look.any():
            rows = np.flatnonzero(look)
            part = {k: v[rows] for k, v in obs.items()} if isinstance(obs, dict) else obs[rows]
            chunk, self.memory[rows] = self.net.chunk(part, self.memory[rows])
            if self.execute > chunk.shape[1]:
                raise ValueError(f"execute must be <= {chunk.shape[1]}, got {self.execute}")
            if self._chunk is None:
                self._chunk = np.zeros((len(look), *chunk.shape[1:]), np.float32)
            self._chunk[rows] = chunk
            self._played[rows] = 0
        assert self._chunk is not None  # the first call looks
        action: Floats = self._chunk[np.arange(len(look)), self._played]
        self._played += 1
        return action

    def reset(self, rows: NDArray[Any] | None = None) -> None:
        """These rows (all by default) remember nothing and look anew."""
        which = slice(None) if rows is None else rows
        self.memory[which] = 0.0
        self._played[which] = self.execute
