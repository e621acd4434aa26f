"""What runs on the device: a compiled model, pictures in, boxes and masks out. docs/runtime.md shows its Python API."""
