"""Quantized models that Bitroad has not trained: any ONNX with Q/DQ nodes, to an integer network, to code."""
