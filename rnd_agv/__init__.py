"""RND-AGV: observation, command, kinematics, planners and policy of the mobile robots (arXiv 2404.12594)."""
