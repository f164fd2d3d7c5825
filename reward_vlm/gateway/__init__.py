"""The reward service: HTTP in front of reward models."""
