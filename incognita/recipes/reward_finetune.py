"""Fine-tune a policy on what it drove itself, weighted by how an episode was scored.

Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177) with one return per episode, its
score, and the mean score as baseline: behaviour cloning with weights exp((R - b) / beta), cut. The
recorded command is the one sent; the action learned is the one sent in the period after what was
seen.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from episodes import Episode, EpisodeReader
from learning.cloning import clone
from learning.policy_file import load_policy, save_policy, verify_policy
from rnd_agv.command import CommandLimits, action_from_command
from rnd_agv.observation import SCAN_PERIOD_S, ObservationConfig, ScanSpec, build, sector_min

from .train import git_revision


@dataclass(frozen=True)
class FinetuneConfig:
    """How strongly scores count, and how long is learned."""

    beta: float = 0.2
    """Temperature of the weights, in rewards of 0..1."""
    most_weight: float = 20.0
    """Weights are cut here, as in the paper."""
    epochs: int = 30
    lr: float = 3e-4
    seed: int = 0
    """Of the order of minibatches."""

    def __post_init__(self) -> None:
        if not (min(self.beta, self.most_weight, self.lr) > 0 and self.epochs >= 1):
            raise ValueError(f"beta, most_weight, lr > 0 and epochs >= 1 wanted, got {self}")


def rewards_of(
    rows: Sequence[dict[str, Any]], ids: Sequence[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Reward 0..1 of every episode that has a sure score, and how many were left out and why.

    Args:
        rows: lines of a sidecar, see :func:`incognita.score.read_scores`.

    Raises:
        ValueError: an episode has scores of several models or questions.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        if by_id.setdefault(row["episode"], row) is not row:
            raise ValueError(f"scores must be of one model and question, {row['episode']} has two")
    left = Counter(missing=0, abstained=0)
    rewards = {}
    for id in ids:
        if id not in by_id:
            left["missing"] += 1
        elif by_id[id]["abstain"] is not None:
            left["abstained"] += 1
        else:
            rewards[id] = float(by_id[id]["reward"])
    return rewards, dict(left)


def weights_of(rewards: NDArray[np.float64], config: FinetuneConfig) -> NDArray[np.float64]:
    """(E,) weights exp((R - b) / beta) of (E,) rewards, b their mean, cut at ``most_weight``."""
    advantage = rewards - rewards.mean()
    return np.asarray(np.minimum(np.exp(advantage / config.beta), config.most_weight))


def pairs_of(
    episode: Episode, config: ObservationConfig, limits: CommandLimits
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(T, D) observations of a recorded episode and (T, 2) actions sent after each.

    Steps without a goal, or with no command before or after, are left out.

    Raises:
        ValueError: the policy sees a guide point, which is not recorded, or the episode is not one
            of the recorder's.
    """
    if config.guide:
        raise ValueError("policy must not see a guide point: it is not recorded")
    if "scan" not in episode.attrs["attrs"]:
        raise ValueError("episode must say how its scan is laid out: record it with the recorder")
    a = {name: np.asarray(values) for name, values in episode.arrays.items()}
    spec = ScanSpec(**episode.attrs["attrs"]["scan"])
    newest = sector_min(a["scan"], spec, config)
    apart = max(round(SCAN_PERIOD_S * episode.attrs["rate_hz"]), 1)
    rows = np.arange(len(newest))
    frames = [newest[np.maximum(rows - apart * k, 0)] for k in range(config.frames)]
    obs = build(
        config, limits, sectors=np.stack(frames, axis=1), pose_w=a["pose_w"],
        goal_w=a["goal_w"].astype(np.float64), vel_b=a["vel_b"], last_command=a["command"],
    )  # fmt: skip
    action = action_from_command(a["command"][1:].astype(np.float64), limits)
    known = np.isfinite(obs[:-1]).all(axis=1) & np.isfinite(action).all(axis=1)
    return obs[:-1][known], np.clip(action[known], -1, 1)


def finetune(
    policy: Path,
    store: Path,
    rewards: dict[str, float],
    out: Path,
    config: FinetuneConfig,
    tuned_on: dict[str, Any],
) -> dict[str, Any]:
    """Tune ``policy`` on the episodes that have a reward, and write it to ``out``.

    Args:
        rewards: episode -> 0..1.
        tuned_on: goes into the manifest: what scored, and how many episodes were left out.

    Returns:
        What the manifest says of the tuning.

    Raises:
        ValueError: no episode has a reward, or as :func:`pairs_of`.
    """
    if not rewards:
        raise ValueError(f"rewards must hold at least one episode of {store}, got none")
    manifest, net, reader = verify_policy(policy), load_policy(policy), EpisodeReader(store)
    seen = ObservationConfig(**manifest["observation"]["config"])
    limits = CommandLimits(**manifest["action"]["limits"])
    ids = sorted(rewards)
    pairs = [pairs_of(reader.open(id), seen, limits) for id in ids]
    each = weights_of(np.array([rewards[id] for id in ids]), config)
    weights = np.concatenate([np.full(len(p[0]), w) for p, w in zip(pairs, each, strict=True)])
    obs, action = (torch.from_numpy(np.concatenate(column)) for column in zip(*pairs, strict=True))
    error = clone(
        net, obs, action, weights=torch.from_numpy(weights / weights.mean()).float(),
        epochs=config.epochs, lr=config.lr, minibatch=256, log_std=None, update_normalizer=False,
        seed=config.seed,
    )["actor"]  # fmt: skip
    tuning = {
        "name": "reward-finetune", "from": manifest["manifest_sha256"], "settings": asdict(config),
        "store": store_digest(store, ids), "episodes": len(ids), "steps": len(obs),
        "mean_reward": float(np.mean(list(rewards.values()))), "actor_error": error, **tuned_on,
        "git": git_revision(),
    }  # fmt: skip
    save_policy(
        out, net, observation=manifest["observation"], action=manifest["action"],
        recipe={**manifest["recipe"], "tuned": tuning}, seeds=[*manifest["seeds"], config.seed],
        evaluation={}, rate_hz=manifest["rate_hz"],
    )  # fmt: skip
    return tuning


def store_digest(store: Path, ids: Sequence[str]) -> str:
    """sha256 over the content of these episodes."""
    found = hashlib.sha256()
    for id in sorted(ids):
        found.update(json.loads((store / id / "manifest.json").read_bytes())["sha256"].encode())
    return found.hexdigest()
