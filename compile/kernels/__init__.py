"""TensorIR kernels of the integer layers."""
