"""What this machine's processor can do, and so which parties it has."""

import platform
from pathlib import Path

VNNI_FLAGS = frozenset(("avx512_vnni", "avx_vnni"))
TARGET_FLAGS = {"avx512-vnni": "avx512_vnni", "vnni256": "avx_vnni", "avx2": "avx2", "plain": "sse2"}


def flags() -> frozenset[str]:
    """Of an x86-64 processor under Linux, as the kernel names them; else none."""
    listing = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not listing.is_file():
        return frozenset()
    return frozenset(listing.read_text(encoding="utf-8").split())


FLAGS = flags()
# Without VNNI the int16 sums of ONNX Runtime's fused int8 kernels may saturate: there only its float kernels are exact.
FUSED_WITNESS = not VNNI_FLAGS.isdisjoint(FLAGS)
NO_FUSED_WITNESS = "no VNNI known of here: ONNX Runtime's int8 kernels may saturate and are no witness"
