"""ONI under Stable-Baselines3: captions from the infos, a bonus on the reward."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .annotate import OniReward

try:
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
except ImportError as error:
    raise ImportError("stable_baselines3 is missing: pip install 'incognita[train]'") from error

log = logging.getLogger(__name__)
CAPTION = "caption"
"""In the infos: what happened in this step, in words; left out or empty: nothing to say."""


class CaptionRewardWrapper(VecEnvWrapper):
    """Adds the bonus of :class:`reward_vlm.annotate.OniReward` to the reward, step by step.

    >>> oni = OniReward(ask_the_language_model, venv.num_envs)
    >>> PPO("MlpPolicy", CaptionRewardWrapper(venv, oni, extrinsic=10.0)).learn(1_000_000)

    Infos gain ``reward_extrinsic`` and ``reward_caption``; ``metrics`` holds the newest update's.

    Args:
        oni: built for the number of environments.
        extrinsic: factor of the environment's own reward; the paper has 10 for sparse ones and .1
            for dense ones.
        update_every: steps of all environments between two updates of the model.
    """

    def __init__(
        self, venv: VecEnv, oni: OniReward, extrinsic: float = 1.0, update_every: int = 128
    ) -> None:
        super().__init__(venv)
        if update_every < 1 or not np.isfinite(extrinsic):
            raise ValueError(
                f"update_every >= 1 and a finite extrinsic wanted, got {update_every}, {extrinsic}"
            )
        self.oni, self.extrinsic, self.update_every = oni, extrinsic, update_every
        self.metrics: dict[str, float] = {}
        self._count = 0

    def reset(self) -> Any:
        """Reset all; counts of running episodes start anew."""
        self.oni.restart()
        return self.venv.reset()

    def step_wait(self) -> Any:
        """Observations, rewards with the bonus, dones, infos."""
        obs, reward, dones, infos = self.venv.step_wait()
        bonus = self.oni.step([info.get(CAPTION, "") for info in infos], dones)
        for info, own, extra in zip(infos, reward, bonus, strict=True):
            info["reward_extrinsic"], info["reward_caption"] = float(own), float(extra)
        self._count += 1
        if self._count % self.update_every == 0:
            self.metrics = self.oni.update()
            log.info("captions: %s", self.metrics)
        total: NDArray[np.float32] = (self.extrinsic * reward + bonus).astype(np.float32)
        return obs, total, dones, infos

    def close(self) -> None:
        """Close the environments and end the annotator's thread."""
        self.oni.close()
        self.venv.close()
