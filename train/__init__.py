"""Training of the multi-task network, steps 0 to 2, and what evaluates and exports it."""

import ctypes
import os

# OpenMP's threads wait for each other by spinning, for milliseconds. Loading processes share the cores with them, so a
# thread that spins keeps the one it waits for from running; but one that has gone to sleep takes long to wake up. Some
# tenths of a millisecond are best. GNU's OpenMP, which torch is built with, reads this once, when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Tensors of megabytes come and go in every iteration. glibc takes each from the system and gives it back, which empties
# and maps every page anew: a tenth of a training step. It keeps them instead. Other C libraries have no mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
if _mallopt is not None:
    _mallopt(_M_MMAP_MAX, 0)
    _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
