"""Long manipulation tasks for the six-axis arm: scenes, stages and their truth, batched physics."""
