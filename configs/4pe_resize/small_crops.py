"""utils.py with crops of half the size: twice the updates in the same time."""

from .utils import *

crop_hw = (384, 640)
