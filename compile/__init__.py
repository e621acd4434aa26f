"""Step 3: from step 2's ONNX to an integer-only compiled model."""
