"""Training of the multi-task network, steps 0 to 2, and what evaluates and exports it."""
