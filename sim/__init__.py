"""MuJoCo worlds, robots, sensors and tasks, batched."""
