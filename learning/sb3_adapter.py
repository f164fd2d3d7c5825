"""Our exploration bonuses under any Stable-Baselines3 algorithm, on- or off-policy.

    env = IntrinsicVecWrapper(venv, curiosity.make("rnd", obs_dim=3, action_dim=1, num_envs=8))
    SAC("MlpPolicy", env).learn(100_000, callback=IntrinsicCallback(env))

Put the wrapper outside a ``VecNormalize`` only if that has ``norm_reward=False``. There is one
value function here; :mod:`learning.ppo` has two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curiosity.base import IntrinsicReward, Transition, summary
from curiosity.normalization import DiscountedReturnStd

try:
    from gymnasium import spaces
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
except ImportError as error:
    raise ImportError("learning.sb3_adapter needs: pip install 'incognita[train]'") from error

State = Callable[[Any, list[dict[str, Any]]], NDArray[np.floating[Any]]]
"""From (N, …) observations and the N infos that came with them to (N, E) novelty states."""


class IntrinsicVecWrapper(VecEnvWrapper):
    """Adds ``weight * bonus / std`` to the reward and learns the bonus online, step by step.

    Infos gain "reward_extrinsic" and "reward_intrinsic" (weighted). The bonus of a finished episode
    is paid for its terminal observation, not for the one after the reset.

    Args:
        venv: the environments; ``bonus`` must be built for their number and sizes.
        weight: of the bonus; :class:`IntrinsicCallback` may anneal it.
        gamma: discount of the returns whose std the bonus is divided by.
        state: what the bonus looks at; by default the flat observation.
    """

    def __init__(
        self,
        venv: VecEnv,
        bonus: IntrinsicReward,
        weight: float = 1.0,
        gamma: float = 0.99,
        state: State | None = None,
    ) -> None:
        super().__init__(venv)
        if state is None and not isinstance(venv.observation_space, spaces.Box):
            raise ValueError(f"state must be given for {venv.observation_space}, got None")
        self.bonus, self.weight, self.state = bonus, weight, state or _flat
        self.scale = DiscountedReturnStd(gamma, venv.num_envs, bonus.horizon == "episodic")
        self.log: deque[dict[str, float]] = deque(maxlen=10_000)
        self._states: NDArray[np.floating[Any]] | None = None
        self._actions: NDArray[np.floating[Any]] = np.zeros((venv.num_envs, 1))

    def reset(self) -> Any:
        """Reset all; running episodes of the bonus are forgotten."""
        obs = self.venv.reset()
        self.bonus.reset()
        self._states = self.state(obs, list(self.venv.reset_infos))
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            self._actions = np.eye(int(space.n))[np.asarray(actions).ravel() - int(space.start)]
        else:
            self._actions = np.asarray(actions).reshape(self.num_envs, -1)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        obs, reward, dones, infos = self.venv.step_wait()
        if self._states is None:
            raise RuntimeError("reset must be called before step")
        led_to = self.state(_before_reset(obs, dones, infos), infos)
        cut = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos]) & dones
        step = Transition.from_numpy(self._states, self._actions, led_to, dones & ~cut, cut)[None]
        raw = self.bonus.compute(step)
        self.scale.update(raw, step.done)
        scaled = self.scale.normalize(raw) if self.bonus.normalize else raw
        self.bonus.update(step)
        extra = self.weight * scaled[0].numpy()
        entry = summary(raw)
        share = float(extra.mean()) / max(float(np.abs(reward).mean() + extra.mean()), 1e-12)
        self.log.append({"raw_mean": entry["mean"], "p95": entry["p95"], "share": share})
        self._states = led_to
        if dones.any():
            now = [self.venv.reset_infos[i] if dones[i] else infos[i] for i in range(len(infos))]
            rows = np.flatnonzero(dones)
            self._states = np.array(led_to)
            self._states[rows] = self.state(obs, now)[rows]
        for i, info in enumerate(infos):
            info["reward_extrinsic"], info["reward_intrinsic"] = float(reward[i]), float(extra[i])
        return obs, (reward + extra).astype(np.float32), dones, infos

    def state_dict(self) -> dict[str, Any]:
        """Bonus, its scale and weight; fit for :func:`learning.checkpoint.save`."""
        return {
            "bonus": dict(self.bonus.state_dict()),
            "scale": dict(self.scale.state_dict()),
            "weight": self.weight,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.bonus.load_state_dict(state["bonus"])
        self.scale.load_state_dict(state["scale"])
        self.weight = state["weight"]


class IntrinsicCallback(BaseCallback):
    """Logs the bonus and lowers its weight linearly to 0 once the task is solved.

    Args:
        env: the wrapper.
        anneal_success: rate of "is_success" over SB3's last 100 episodes that starts the descent.
        anneal_steps: environment steps that it takes; 0 keeps the weight.
    """

    def __init__(
        self, env: IntrinsicVecWrapper, anneal_success: float = 0.8, anneal_steps: int = 0
    ) -> None:
        super().__init__()
        self.env, self.anneal_success, self.anneal_steps = env, anneal_success, anneal_steps
        self.full_weight = env.weight
        self.anneal_from: int | None = None

    def _on_step(self) -> bool:
        successes = self.model.ep_success_buffer
        if self.anneal_steps and self.anneal_from is None and successes:
            full = len(successes) == successes.maxlen
            if full and float(np.mean(successes)) >= self.anneal_success:
                self.anneal_from = self.num_timesteps
        if self.anneal_from is not None:
            gone = (self.num_timesteps - self.anneal_from) / self.anneal_steps
            self.env.weight = self.full_weight * max(0.0, 1 - gone)
        return True

    def _on_rollout_end(self) -> None:
        entries = list(self.env.log)
        self.env.log.clear()
        for name in entries[0] if entries else ():
            self.logger.record(f"intrinsic/{name}", float(np.mean([e[name] for e in entries])))
        self.logger.record("intrinsic/weight", self.env.weight)


def _flat(obs: Any, infos: list[dict[str, Any]]) -> NDArray[np.floating[Any]]:
    return np.asarray(obs, dtype=np.float32).reshape(len(infos), -1)


def _before_reset(obs: Any, dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> Any:
    """The observations that the step led to, terminal ones where an episode ended."""
    if isinstance(obs, dict):
        out: Any = {key: np.array(value) for key, value in obs.items()}
        for i in np.flatnonzero(dones):
            for key in out:
                out[key][i] = infos[i]["terminal_observation"][key]
        return out
    out = np.array(obs)
    for i in np.flatnonzero(dones):
        out[i] = infos[i]["terminal_observation"]
    return out
