"""A scripted follower of the guide point, whose drives start the guided policies off."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from learning.cloning import clone
from learning.ppo import ActorCritic
from rnd_agv.observation import to_body
from sim.batch import BatchEnv


def follow_guide(env: BatchEnv) -> NDArray[np.float32]:
    """(N, 2) actions that turn to the guide point and slow down before what is near in front.

    Raises:
        ValueError: the task has no guide.
    """
    if env.state.guide_w is None:
        raise ValueError(f"task must have a guide to follow, got guide={env.config.guide!r}")
    limits, half = env.robot.limits, env.robot.half_extents
    point = to_body(env.state.guide_w, env.state.seen_pose_w)
    bearing = np.arctan2(point[:, 1], point[:, 0])
    angles = env.scan.angles
    ahead, beside = np.cos(angles) * env.ranges, np.abs(np.sin(angles)) * env.ranges
    in_way = (ahead > 0) & (beside < half[1] + 0.08)
    gap = np.where(in_way, ahead, np.inf).min(axis=1) - half[0]
    speed = limits.v_max * np.clip(np.cos(bearing), 0, 1) ** 4
    speed = np.minimum(speed, np.clip(1.2 * (gap - 0.1), 0, limits.v_max))
    turn = np.clip(2.5 * bearing, -limits.w_max, limits.w_max)
    v = 2 * (speed - limits.v_min) / (limits.v_max - limits.v_min) - 1
    return np.stack([v, turn / limits.w_max], axis=1).astype(np.float32)


def clone_follower(
    net: ActorCritic, env: BatchEnv, rounds: int = 4, steps: int = 400, seed: int = 0
) -> float:
    """Clone :func:`follow_guide` by DAgger (Ross 2011).

    Each round drives more with the clone itself.

    Returns:
        The last round's mean squared error of the actions.
    """
    rng = np.random.default_rng(seed)
    obs = env.reset()
    seen: list[NDArray[np.float32]] = []
    shown: list[NDArray[np.float32]] = []
    error = float("nan")
    for k in range(rounds):
        mine = rng.random(env.num_envs) < k / rounds
        for _ in range(steps):
            action = follow_guide(env)
            seen.append(obs)
            shown.append(action)
            driven = np.where(mine[:, None], net.act(obs), action) if k else action
            noise = 0.15 * rng.standard_normal(action.shape)
            obs = env.step((driven + noise).astype(np.float32)).obs
        pairs = torch.from_numpy(np.concatenate(seen)), torch.from_numpy(np.concatenate(shown))
        last = k == rounds - 1
        error = clone(
            net, *pairs, epochs=4 if last else 2, log_std=-1.2, update_normalizer=k == 0, seed=seed
        )["actor"]
    return error
