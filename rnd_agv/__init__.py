"""RND-AGV: the mobile robots' code (arXiv 2404.12594).

Observation, command, kinematics, planners and policy.
"""
