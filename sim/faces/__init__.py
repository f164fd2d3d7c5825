"""Faces of the batch engine: Gymnasium, GoalEnv, Stable-Baselines3, Isaac Gym, rl_games, rsl_rl.

Every face is thin and adds no physics: row i of any of them is row i of :class:`sim.batch.BatchEnv`
of the same task, seed and actions.
"""
