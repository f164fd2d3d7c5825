"""Remedy for gymnasium-robotics 1.4.2 on MuJoCo >= 3.12; drop it when upstream releases its fix.

Since pybind11 3.1 ``mjtJoint.X == np.int32`` is False, so Fetch, Hand and FrankaKitchen die with a
bare ``AssertionError`` (Gymnasium-Robotics PR 330, unreleased).
"""

from __future__ import annotations

from types import SimpleNamespace

import mujoco


def patch() -> None:
    """Let ``gymnasium_robotics.utils.mujoco_utils`` compare joint types as integers.

    Call it before making one of its environments; twice is once.

    Raises:
        ImportError: gymnasium-robotics is not installed.
    """
    try:
        from gymnasium_robotics.utils import mujoco_utils
    except ImportError as error:
        raise ImportError("gymnasium-robotics is needed: pip install 'incognita[train]'") from error
    joints = {name: int(value) for name, value in mujoco.mjtJoint.__members__.items()}
    mujoco_utils.mujoco = SimpleNamespace(
        **(vars(mujoco) | {"mjtJoint": SimpleNamespace(**joints)})
    )
