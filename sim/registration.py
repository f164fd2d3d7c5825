"""The Gymnasium ids of the tasks. Registering imports neither mujoco nor torch; making one does."""

from __future__ import annotations

NAMES = {
    "AgvSimpleStatic": "agv-simple-static",
    "AgvSimpleDynamic": "agv-simple-dynamic",
    "AgvComplexStatic": "agv-complex-static",
    "AgvComplexDynamic": "agv-complex-dynamic",
    "AgvFar": "agv-far",
    "AgvWarehouse": "agv-warehouse",
    "AgvBarn": "agv-barn",
    "AgvRosMap": "agv-ros-map",
    "AgvArena": "agv-arena",
    "Coverage": "coverage",
    "Lifelong": "lifelong",
    "Patrol": "patrol",
    "GoalReaching": "goal",
    "Find": "find",
}
"""Name of the id -> name of the task in :mod:`sim.tasks`."""

ARM_NAMES = {
    "Stack": "stack",
    "StackCue": "stack-cue",
    "JujubeCup": "jujube-cup",
    "Bridge": "bridge",
    "BridgeLite": "bridge-lite",
}
"""The same of the long manipulation tasks, :data:`sim.tasks.ARM_TASKS`."""


def env_id(name: str, goal: bool = False) -> str:
    """``Incognita/AgvWarehouse-v0``, or for ``GoalEnv`` ``Incognita/AgvWarehouseGoal-v0``."""
    return f"Incognita/{name}{'Goal' * goal}-v0"


def register() -> None:
    """Register every task twice, flat and with goals; a second call changes nothing.

    Episodes are cut by the task itself (``max_steps=``), so no id has a ``TimeLimit`` wrapper.
    ``Incognita/AgvRosMap-v0`` wants ``map_yaml=``.
    """
    import gymnasium

    for goal in (False, True):
        for name, task in (NAMES | ARM_NAMES).items():
            if env_id(name, goal) not in gymnasium.registry:
                module = f"sim.faces.{'goal_env' if goal else 'gymnasium_env'}"
                face = "GoalTask" if goal else "Task"
                gymnasium.register(
                    id=env_id(name, goal),
                    entry_point=f"{module}:{face}Env",
                    vector_entry_point=f"{module}:{face}VectorEnv",
                    kwargs={"task": task},
                )
        if env_id("Terrain", goal) not in gymnasium.registry:  # hills: no task of the batch engine
            face = "TerrainGoalEnv" if goal else "TerrainEnv"
            gymnasium.register(id=env_id("Terrain", goal), entry_point=f"sim.tasks.terrain:{face}")
