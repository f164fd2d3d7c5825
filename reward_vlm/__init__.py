"""RoboReward as a service: rubric, models, gateway, clients (arXiv 2601.00675)."""
