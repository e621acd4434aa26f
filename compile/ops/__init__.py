"""Post-processing operators as TensorIR."""
