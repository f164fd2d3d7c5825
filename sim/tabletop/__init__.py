"""A six-axis arm at a table: scenes, physics, scripted behaviour, the rubric as a function of state."""
