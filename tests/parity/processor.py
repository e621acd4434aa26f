"""What this machine's processor can do, and so which parties it has."""

from runtime.processor import processor_flags

VNNI_FLAGS = frozenset(("avx512_vnni", "avx_vnni"))
# Without VNNI the int16 sums of ONNX Runtime's fused int8 kernels may saturate: there only its float kernels are exact.
FUSED_WITNESS = not VNNI_FLAGS.isdisjoint(processor_flags())
NO_FUSED_WITNESS = "no VNNI known of here: ONNX Runtime's int8 kernels may saturate and are no witness"
