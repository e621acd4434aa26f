"""The cross-compiled objects for ARM: they cannot run here, but their code can be read."""

import re
import tarfile
from pathlib import Path

from compile.build import STEP_3, main
from compile.files import load_pair
from compile.pipeline import compile_module
from compile.targets import find_target
from tests.compile.toy import Run

ELF_AARCH64 = 183  # e_machine


def test_the_objects_are_for_arm(copy: Run) -> None:
    assert main(copy.build_arguments("--source", "int-inference", "--target", "arm-dotprod")) == 0
    with tarfile.open(copy.folder / f"{STEP_3}-arm-dotprod.tar") as archive:
        heads = [archive.extractfile(member).read(20) for member in archive if member.name.endswith(".o")]  # type: ignore[union-attr]
    assert heads
    assert {int.from_bytes(head[18:20], "little") for head in heads if head[:4] == b"\x7fELF"} == {ELF_AARCH64}


def test_their_code_has_the_dot_product_instruction(built: Run, tmp_path: Path) -> None:
    executable = compile_module(*load_pair(built.folder / STEP_3), find_target("arm-dotprod"), None)
    (library,) = (module for module in executable.mod.imports if module.kind == "llvm")
    dots = re.findall(r"^\s+sdot\s+v", library.inspect_source("asm"), re.MULTILINE)
    assert len(dots) > 100
