"""From TVM's executable to a `.so`: the one thing that needs a C++ compiler."""

import shutil
from pathlib import Path

from tvm import relax
from tvm.support import cc

from compile.errors import CompileError


def export_library(executable: relax.VMExecutable, library: Path) -> None:
    """Links the `.so`. Raises CompileError where the machine has no C++ compiler, or it fails."""
    compiler = find_compiler()
    partial = library.with_name(f"partial-{library.name}")
    try:
        executable.export_library(str(partial), fcompile=cc.create_shared, cc=compiler)
        partial.replace(library)
    except RuntimeError as error:  # what the compiler printed, between TVM's heading and the command line
        printed = str(error).split("Command line:")[0].removeprefix("Compilation error:")
        raise CompileError(f"{library}: {compiler} cannot link it: {' '.join(printed.split())}") from error
    finally:
        partial.unlink(missing_ok=True)


def find_compiler() -> str:
    """Path of the C++ compiler that TVM links with. Raises CompileError where there is none."""
    compiler = cc.get_cc()  # what CXX or CC names, or else the first on the PATH
    if compiler is None or shutil.which(compiler) is None:
        named = "on the PATH" if compiler is None else f"at {compiler}, which CXX or CC names"
        raise CompileError(f"no C++ compiler (g++ or clang++) {named}; install one: TVM links the model with it")
    return str(compiler)
