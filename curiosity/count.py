"""Visit-count bonus on localised position (Strehl and Littman 2008; Bellemare et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import EnvIds, Horizon, IntrinsicReward, Transition, env_rows
from .features import check_columns

U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class VisitCountConfig:
    """Cells and scope of a visit-count bonus."""

    obs_dim: int
    """Length of one state."""
    action_dim: int = 1
    """Length of one action (not looked at)."""
    num_envs: int = 1
    """Rows of a transition; matters for the episodic scope only."""
    columns: tuple[int, ...] = (0, 1)
    """Columns that are cut into cells: a position, metres."""
    cell_m: float = 0.5
    """Edge of a cell, metres."""
    id_columns: tuple[int, ...] = ()
    """Columns that hold whole numbers and must be equal, such as a layout number."""
    goal_columns: tuple[int, ...] = ()
    """Columns of a goal position: count each goal cell on its own."""
    goal_cell_m: float = 2.0
    """Edge of a goal cell, metres."""
    scope: Horizon = "lifelong"
    """"lifelong": one count for all rows and episodes; "episodic": each row's running episode."""
    entries_only: bool = False
    """Count and pay a step only if it enters another cell: dwelling in a new one pays nothing."""
    scale: float = 1.0
    """Factor on the bonus."""

    def __post_init__(self) -> None:
        if self.obs_dim < 1 or self.num_envs < 1:
            raise ValueError(f"sizes must be >= 1, got {self}")
        check_columns("columns", self.columns, self.obs_dim)
        for name in ("id_columns", "goal_columns"):
            if getattr(self, name):
                check_columns(name, getattr(self, name), self.obs_dim)
        if not (self.cell_m > 0 and self.goal_cell_m > 0):
            got = f"{self.cell_m}, {self.goal_cell_m}"
            raise ValueError(f"cell_m, goal_cell_m must be > 0 m, got {got}")
        if not self.scale > 0:
            raise ValueError(f"scale must be > 0, got {self.scale}")
        if self.scope not in ("lifelong", "episodic"):
            raise ValueError(f"scope must be 'lifelong' or 'episodic', got {self.scope!r}")


class VisitCount(IntrinsicReward):
    r"""One over the root of the visits to a cell, this one included.

    .. math:: r_t = 1 / \sqrt{n(c(o_{t+1}))}

    With ``entries_only``, n counts arrivals, and a step within a cell pays 0.

    Rows of one step are counted in order of their number. Cells are told apart by a 64-bit hash:
    among ten million cells two share a count with a chance of 3 in a million.

    The table is a sorted array of keys beside their visits. A rollout costs one sort of its own
    keys and a merge; nothing loops over steps.
    """

    name = "count"

    def __init__(self, config: VisitCountConfig) -> None:
        super().__init__(config.obs_dim, config.action_dim)
        self.config = config
        self.horizon = config.scope
        self.rows = config.num_envs if config.scope == "episodic" else None
        self._keys: U64 = np.empty(0, np.uint64)  # (K,) sorted
        self._visits = np.empty(0, np.int64)  # (K,)
        self._owner = np.empty(0, np.int64)  # (K,) episode * num_envs + row; 0 if lifelong
        # (N,) running episode of each row; a lifelong count has none, so it loads at any N.
        self._episode = np.zeros(self.rows or 0, np.int64)

    @property
    def cells(self) -> int:
        """Cells visited so far (episodic: in the running episodes, over all rows)."""
        return len(self._keys)

    def update(self, tr: Transition) -> dict[str, float]:
        """Count a rollout."""
        return {**super().update(tr), "cells": float(self.cells)}

    def reset(self, env_ids: EnvIds = None) -> None:
        """Forget the running episode of these rows; a lifelong count forgets nothing."""
        if self.horizon == "episodic":
            self._episode[np.unique(env_rows(env_ids, self.config.num_envs))] += 1
            self._purge()

    def _run(self, tr: Transition, commit: bool) -> Tensor:
        shape = tuple(tr.terminated.shape)
        owner = self._owners(tr)  # (T, N)
        keys = self._hash(tr.next_obs.cpu().numpy(), owner).ravel()  # (T * N,) in time order
        owner = owner.ravel()
        counted = np.ones(len(keys), np.bool_)
        if self.config.entries_only:
            counted = keys != self._hash(tr.obs.cpu().numpy(), owner.reshape(shape)).ravel()
            keys, owner = keys[counted], owner[counted]

        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        first = np.ones(len(ordered), np.bool_)
        first[1:] = ordered[1:] != ordered[:-1]
        start = np.flatnonzero(first)
        group = np.cumsum(first) - 1
        cell = ordered[start]  # (U,) distinct keys, sorted

        slot = np.searchsorted(self._keys, cell)
        known = np.zeros(len(cell), np.bool_)
        inside = slot < len(self._keys)
        known[inside] = self._keys[slot[inside]] == cell[inside]
        before = np.zeros(len(cell), np.int64)
        before[known] = self._visits[slot[known]]

        visits = np.empty(len(keys), np.int64)
        visits[order] = before[group] + np.arange(len(keys)) - start[group] + 1

        if commit:
            fresh = ~known
            total = before + np.diff(start, append=len(keys))
            self._visits[slot[known]] = total[known]
            if fresh.any():
                at = slot[fresh]
                self._keys = np.insert(self._keys, at, cell[fresh])
                self._visits = np.insert(self._visits, at, total[fresh])
                self._owner = np.insert(self._owner, at, owner[order[start]][fresh])
            if self.horizon == "episodic":
                ended = tr.done.cpu().numpy().sum(0)
                self._episode += ended
                if ended.any():
                    self._purge()
        bonus = np.zeros(len(counted), np.float32)
        bonus[counted] = self.config.scale / np.sqrt(visits)
        return torch.from_numpy(bonus.reshape(shape)).to(tr.next_obs.device)

    def _owners(self, tr: Transition) -> NDArray[np.int64]:
        """(T, N) number of the episode that each step belongs to; zeros if lifelong."""
        shape = tuple(tr.terminated.shape)
        if self.horizon == "lifelong":
            return np.zeros(shape, np.int64)
        num_envs = self.config.num_envs
        done = tr.done.cpu().numpy()
        finished = np.cumsum(done, axis=0, dtype=np.int64) - done  # before this step
        serial: NDArray[np.int64] = (self._episode + finished) * num_envs + np.arange(num_envs)
        return serial

    def _hash(self, obs: NDArray[np.float32], owner: NDArray[np.int64]) -> U64:
        """(T, N) keys of the cells that (T, N, E) states lie in."""
        cfg = self.config
        parts = [owner]
        parts += [np.floor(obs[..., c] / np.float64(cfg.cell_m)) for c in cfg.columns]
        parts += [np.rint(obs[..., c]) for c in cfg.id_columns]
        parts += [np.floor(obs[..., c] / np.float64(cfg.goal_cell_m)) for c in cfg.goal_columns]
        key = np.zeros(obs.shape[:-1], np.uint64)
        for part in parts:
            key = _splitmix(key ^ part.astype(np.int64).view(np.uint64))
        return key

    def _purge(self) -> None:
        """Drop the cells of finished episodes."""
        num_envs = self.config.num_envs
        keep = self._owner // num_envs == self._episode[self._owner % num_envs]
        self._keys = self._keys[keep]
        self._visits = self._visits[keep]
        self._owner = self._owner[keep]

    def get_extra_state(self) -> dict[str, Any]:
        """The table, as tensors."""
        return {
            "keys": torch.from_numpy(self._keys.view(np.int64).copy()),
            "visits": torch.from_numpy(self._visits.copy()),
            "owner": torch.from_numpy(self._owner.copy()),
            "episode": torch.from_numpy(self._episode.copy()),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`get_extra_state`."""
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}
        if arrays["episode"].shape != self._episode.shape:
            want, got = self._episode.shape, arrays["episode"].shape
            raise ValueError(f"saved counts must be for {want[0]} rows, got {got[0]}")
        self._keys = arrays["keys"].view(np.uint64)
        self._visits = arrays["visits"]
        self._owner = arrays["owner"]
        self._episode = arrays["episode"]


def _splitmix(x: U64) -> U64:
    """Mix 64 bits (Steele, Lea and Flood 2014, the finalizer of SplitMix64); a bijection."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
