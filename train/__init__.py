"""Training of the multi-task network, steps 0 to 2, and what evaluates and exports it."""

import os

# OpenMP's threads wait for each other by spinning, for milliseconds. Loading processes share the cores with them, so a
# thread that spins keeps the one it waits for from running. About a microsecond of it is enough. GNU's OpenMP, which
# torch is built with, reads this once, when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
