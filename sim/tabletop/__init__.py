"""A six-axis arm at a table: scenes, physics, scripts, and the rubric as a function of state."""
