"""Targets by the names that `--target` takes, as TVM wants them."""

import platform
from typing import Any

import tvm

from compile.errors import CompileError

# Every name is x86-64 with the features of a family of processors; `plain` runs on any.
FAMILIES = {
    "avx512-vnni": "cascadelake",
    "vnni256": "alderlake",
    "avx2": "haswell",
    "plain": "x86-64",
}
NAMES = ("native", *FAMILIES)


def host_processor() -> str:
    """LLVM's name of this machine's processor."""
    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def masked_features(processor: str) -> list[str]:
    """Instructions that a processor of this name has but this machine does not let us use, as LLVM switches them off.

    A virtual machine may hide some; LLVM goes by the name alone and would use them.
    """
    implied = tvm.get_global_func("target.llvm_get_cpu_features")(llvm_target({"kind": "llvm", "mcpu": processor}))
    present = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return sorted(f"-{name}" for name, usable in present.items() if not usable and name in implied)


def describe_target(name: str) -> dict[str, Any]:
    """What the manifest records, and what `llvm_target` builds for. Raises CompileError for an unknown name."""
    if name not in NAMES:
        raise CompileError(f"--target {name}: unknown; use one of {', '.join(NAMES)}")
    if name != "native" and platform.machine() not in ("x86_64", "AMD64"):
        raise CompileError(f"--target {name}: for x86-64 processors, this machine is {platform.machine()}; use native")
    mcpu = FAMILIES.get(name) or host_processor()
    mattr = masked_features(mcpu) if name == "native" else []
    return {"name": name, "kind": "llvm", "mcpu": mcpu, "mattr": mattr, "machine": platform.machine()}


def llvm_target(description: dict[str, Any]) -> tvm.target.Target:
    """The target that `describe_target` describes."""
    return tvm.target.Target({key: description[key] for key in ("kind", "mcpu", "mattr") if description.get(key)})
