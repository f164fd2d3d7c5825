"""MuJoCo worlds, robots, sensors and tasks, batched.

Importing this registers the tasks with Gymnasium, if that is installed::

    import gymnasium, sim
    env = gymnasium.make("Incognita/AgvWarehouse-v0")
"""

from importlib.util import find_spec

if find_spec("gymnasium") is not None:
    from .registration import register

    register()
