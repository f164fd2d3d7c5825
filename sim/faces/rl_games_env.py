"""The rl_games face: its vectorised environment (rl-games 1.6.5) over a ``VecTask``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .vec_task import VecTask

NAME = "incognita"
"""``env_name`` of an rl_games configuration; ``env_config`` are the arguments of ``VecTask``."""


class RlGamesEnv:
    """A task with the functions of ``rl_games.common.ivecenv.IVecEnv``."""

    def __init__(self, task: VecTask) -> None:
        self.task = task

    def reset(self) -> dict[str, Tensor]:
        """Start every row anew."""
        return self.task.reset()

    def step(self, actions: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Any]]:
        """Advance; ``infos`` hold ``time_outs`` for bootstrapping (``value_bootstrap: True``)."""
        obs, reward, done, extras = self.task.step(actions)
        return obs, reward, done, {"time_outs": extras["time_outs"]}

    def get_env_info(self) -> dict[str, Any]:
        """Spaces and number of agents."""
        return {
            "action_space": self.task.action_space,
            "observation_space": self.task.observation_space,
            "state_space": None,
            "use_global_observations": False,
            "agents": 1,
            "value_size": 1,
        }

    def get_number_of_agents(self) -> int:
        """One per row."""
        return 1

    def has_action_masks(self) -> bool:
        """Actions are continuous."""
        return False

    def seed(self, seed: int) -> None:
        """Start at ``seed``'s first episodes at the next reset."""
        self.task.rows.batch.seed = int(seed)
        self.task.rows.batch.episode[:] = 0

    def set_train_info(self, env_frames: int, *args: Any, **kwargs: Any) -> None:
        """How far training is; nothing depends on it."""

    def get_env_state(self) -> None:
        """Nothing: rl_games starts every row anew when it goes on from a checkpoint."""

    def set_env_state(self, env_state: None) -> None:
        """See :meth:`get_env_state`."""

    def close(self) -> None:
        """Free what rendering holds."""
        self.task.close()


def register(name: str = NAME) -> None:
    """Make ``name`` known to rl_games: put it into a configuration as ``config.env_name``.

    ``config.num_actors`` is the number of rows and ``config.env_config`` the further arguments of
    :class:`sim.faces.vec_task.VecTask`.

    Raises:
        ImportError: rl-games is not installed.
    """
    try:
        from rl_games.common import env_configurations, vecenv
    except ImportError as error:
        raise ImportError("rl-games is needed: pip install rl-games") from error

    def create(config_name: str, num_actors: int, **config: Any) -> RlGamesEnv:
        return RlGamesEnv(VecTask(num_envs=num_actors, **config))

    vecenv.register(name, create)
    env_configurations.register(
        name,
        {
            "vecenv_type": name,
            "env_creator": lambda **config: RlGamesEnv(VecTask(num_envs=1, **config)),
        },
    )
