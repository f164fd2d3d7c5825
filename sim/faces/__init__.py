"""Faces of the batch engine: Gymnasium, GoalEnv, Stable-Baselines3, Isaac Gym, rl_games, rsl_rl.

Every face is thin and adds no physics: row i of any of them is row i of the task's batch engine,
:class:`sim.batch.BatchEnv` or :class:`sim.manipulation.batch.ArmBatch`, of the same task, seed and
actions.
"""
