"""PPO on the vector-env contract, policy files and checkpoints."""
