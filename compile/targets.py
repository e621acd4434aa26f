"""Targets by the names that `--target` takes: the processor that TVM generates code for, and what that code needs."""

import platform
from dataclasses import dataclass
from typing import Any

import tvm

from compile.errors import CompileError
from compile.kernels.instructions import ARM, AVX2, PLAIN128, PLAIN256, PLAIN512, VNNI256, VNNI512, Instructions
from compile.kernels.peak import PeakKernel
from runtime.processor import missing_flags, processor_flags

# Features by the names that Linux gives them, of which LLVM may use any in code for these processors.
_HASWELL = ("avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "popcnt", "sse4_1", "sse4_2", "ssse3")
_CASCADELAKE = (*_HASWELL, "adx", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")
_ALDERLAKE = (*_HASWELL, "adx", "avx_vnni", "gfni", "vaes", "vpclmulqdq")
_VECTORS = (
    "asimd",
    "avx",
    "fma",
    "f16c",
    "bmi",
    "abm",
    "movbe",
    "popcnt",
    "sse",
    "ssse",
    "gfni",
    "vaes",
    "vpcl",
    "sha_ni",
    "adx",
)


@dataclass(frozen=True)
class Target:
    """What code is generated for: processor and features in LLVM's names, and the features in Linux's that it needs.

    `machine`: what `platform.machine()` says there; `triple`: LLVM's name of another system than this one, or empty.
    """

    name: str
    mcpu: str
    instructions: Instructions
    flags: tuple[str, ...]
    mattr: tuple[str, ...] = ()
    machine: str = "x86_64"
    triple: str = ""

    def llvm(self) -> tvm.target.Target:
        """As TVM wants it."""
        settings = {"mattr": list(self.mattr), "mtriple": self.triple}
        return tvm.target.Target(
            {"kind": "llvm", "mcpu": self.mcpu} | {key: value for key, value in settings.items() if value}
        )

    @property
    def is_foreign(self) -> bool:
        """Whether its code is for another kind of machine than this one."""
        return self.machine != platform.machine()

    def to_json(self) -> dict[str, Any]:
        """What the manifest records."""
        return {
            "name": self.name,
            "kind": "llvm",
            "mcpu": self.mcpu,
            "mattr": list(self.mattr),
            "machine": self.machine,
            "flags": list(self.flags),
            "peak_macs": PeakKernel.macs(self.instructions),
        }


FAMILIES = {
    target.name: target
    for target in (
        Target("avx512-vnni", "cascadelake", VNNI512, _CASCADELAKE),
        Target("vnni256", "alderlake", VNNI256, _ALDERLAKE),
        Target("avx2", "haswell", AVX2, _HASWELL),
        Target("x86-64", "x86-64", PLAIN128, ()),
        Target("arm-dotprod", "neoverse-n1", ARM, ("asimddp",), machine="aarch64", triple="aarch64-linux-gnu"),
    )
}
# The same instructions on 256 bits in the encoding of AVX-512, where the processor has no other.
_VNNI256_OF_AVX512 = Target("vnni256", "cascadelake", VNNI256, _CASCADELAKE)
NAMES = ("native", *FAMILIES, "plain")  # plain: this machine, without intrinsics


def find_target(name: str) -> Target:
    """The target of this name. Raises CompileError for an unknown one."""
    if name in ("native", "plain"):
        return target_of_host(name)
    if name not in FAMILIES:
        raise CompileError(f"--target {name}: unknown; use one of {', '.join(NAMES)}")
    family = FAMILIES[name]
    if family.machine != platform.machine() and not family.triple:
        raise CompileError(
            f"--target {name}: for {family.machine} processors, this machine is {platform.machine()}; use native"
        )
    if name == "vnni256" and missing_flags(_ALDERLAKE) and not missing_flags(_CASCADELAKE):
        return _VNNI256_OF_AVX512
    return family


def target_of_host(name: str) -> Target:
    """This machine's processor with all that the system lets us use; its intrinsics, too, unless `name` is plain."""
    processor, machine = host_processor(), platform.machine()
    ours = [family for family in FAMILIES.values() if family.machine == machine and not missing_flags(family.flags)]
    best = ours[0].instructions if ours else PLAIN128
    if name == "plain":
        best = {16: PLAIN512, 8: PLAIN256, 4: PLAIN128}[best.lanes]
    flags = tuple(sorted(flag for flag in processor_flags() if flag.startswith(_VECTORS)))
    return Target(name, processor, best, flags, tuple(masked_features(processor)), machine)


def host_processor() -> str:
    """LLVM's name of this machine's processor."""
    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def masked_features(processor: str) -> list[str]:
    """Instructions that a processor of this name has but this machine does not let us use, as LLVM switches them off.

    A virtual machine may hide some; LLVM goes by the name alone and would use them.
    """
    named = tvm.target.Target({"kind": "llvm", "mcpu": processor})
    implied = tvm.get_global_func("target.llvm_get_cpu_features")(named)
    present = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return sorted(f"-{name}" for name, usable in present.items() if not usable and name in implied)
