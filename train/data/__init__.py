"""Embedded scenes, the on-disk data format, and the loaders."""
