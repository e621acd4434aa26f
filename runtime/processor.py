"""What the processor of this machine can do, as the system says it."""

import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_LISTING = Path("/proc/cpuinfo")


@cache
def processor_flags() -> frozenset[str]:
    """Names of features as Linux spells them, `avx512_vnni` or `asimddp`; empty where the system does not say."""
    return frozenset(word for key in ("flags", "Features") for word in _entry(key).split())


def processor_name() -> str:
    """The model, for reports."""
    return _entry("model name") or platform.processor() or platform.machine()


def missing_flags(needed: Sequence[str]) -> list[str]:
    """Those of the features that this processor does not have; none where the system does not say."""
    present = processor_flags()
    return [flag for flag in needed if flag not in present] if present else []


def _entry(key: str) -> str:
    """What the system says under a key of its first processor."""
    try:
        lines = _LISTING.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
