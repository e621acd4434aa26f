"""Running a network on one network input: the `Engine` protocol, and the engine of a compiled model."""

import copy
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.artifact import Manifest, load_artifact
from runtime.errors import ArtifactError, UsageError
from runtime.image import Picture
from runtime.processor import missing_flags, processor_name

Outputs = dict[str, npt.NDArray[Any]]
_loaded: set[Path] = set()
SPIN_COUNT = "10000"  # looks of a thread for work, some 20 ms, before it falls asleep


class Engine(Protocol):
    """What a `Predictor` needs of a network, whoever runs it."""

    def run(self, picture: Picture, im_hw: tuple[int, int] | None = None) -> Mapping[str, npt.NDArray[Any]]:
        """Outputs by name for a network input, uint8 (1, H, W, 3) RGB.

        `im_hw` is the size of the picture within the input, the rest being padding; boxes are clipped to it. Every
        detection task gives `<task>.boxes`, int32 (n, 6): x1, y1, x2, y2 in quarter pixels of the input, int8 score,
        class; unused rows are -1. Every segmentation task gives `<task>.mask`, uint8 (1, h, w).
        """
        ...


class CompiledEngine:
    """A compiled model, loaded and ready.

    `manifest` describes it; `vm` is TVM's virtual machine, for `vm.set_instrument`. TVM starts with its runtime library
    alone, unless this process has loaded the compiler already. `threads` limits the threads of all engines in the
    process. ArtifactError if the files cannot be used, see `runtime.artifact.load_artifact`.
    """

    def __init__(self, library: str | os.PathLike[str], threads: int | None = None) -> None:
        self.manifest: Manifest = load_artifact(library)
        self._module, machine = load_module(library, self.manifest.target, threads)
        self._tvm = load_tvm()
        self._start(machine)

    def _start(self, machine: Any) -> None:
        """Takes a virtual machine, and memory for one picture."""
        self.vm = machine
        self._main = self.vm["main"]
        geometry = self.manifest.input
        self._picture = self._tvm.runtime.empty((1, geometry.height, geometry.width, 3), "uint8")
        self._valid_hw = self._tvm.runtime.empty((1, 2), "int32")
        self._checked = False

    def twin(self) -> "CompiledEngine":
        """Another engine of the same code, for another thread of Python."""
        other = copy.copy(self)
        other._start(virtual_machine(self._module))
        return other

    def run(self, picture: Picture, im_hw: tuple[int, int] | None = None) -> Outputs:
        """All outputs of the manifest by name. See `Engine.run`; without `im_hw` the whole input counts but the
        geometry's padding on the right. One run at a time: an engine has memory for one picture; see `twin`.
        """
        geometry = self.manifest.input
        expected = (1, geometry.height, geometry.width, 3)
        if picture.dtype != np.uint8 or picture.shape != expected:
            raise UsageError(f"the network input is uint8 {expected}, not {picture.dtype} {picture.shape}")
        arguments = [self._picture.copyfrom(np.ascontiguousarray(picture))]
        if self.manifest.uses_im_hw:
            valid = im_hw or (geometry.height, geometry.width - geometry.pad_right)
            arguments.append(self._valid_hw.copyfrom(np.array([valid], np.int32)))
        results = self._main(*arguments)
        if not self._checked:
            self._check(results)
        # views of TVM's memory, which they keep
        return {
            output.name: np.from_dlpack(result) for output, result in zip(self.manifest.outputs, results, strict=True)
        }

    def _check(self, results: Any) -> None:
        """Shapes and types cannot change between runs, so once is enough."""
        found = [(str(result.dtype), tuple(result.shape)) for result in results]
        expected = [(output.dtype, output.shape) for output in self.manifest.outputs]
        if found != expected:
            raise ArtifactError(
                f"the compiled model returns {len(found)} tensors, its manifest lists {len(expected)}, "
                "and they do not fit; build the model again with `python -m compile.build`"
            )
        self._checked = True


def load_module(library: str | os.PathLike[str], target: Mapping[str, Any], threads: int | None) -> tuple[Any, Any]:
    """The code of a `.so` whose manifest is checked already, and a virtual machine for it.

    ArtifactError where it cannot run here.
    """
    _check_processor(library, target)
    tvm = load_tvm()
    if threads is not None:
        set_threads(threads)
    try:
        with _fresh_path(Path(library).resolve()) as path:
            module = tvm.runtime.load_module(str(path))
        return module, virtual_machine(module)
    except Exception as error:  # TVM raises whatever its C++ side names
        raise ArtifactError(
            f"{library}: TVM cannot load it ({_first_line(error)}); build the model again on a machine of this kind"
        ) from None


def virtual_machine(module: Any) -> Any:
    """TVM's, for a module's code on the CPU."""
    from tvm.runtime.vm import VirtualMachine

    return VirtualMachine(module, load_tvm().cpu())


def _check_processor(library: str | os.PathLike[str], target: Mapping[str, Any]) -> None:
    """ArtifactError where this machine cannot run the code: it would be killed without a word."""
    machine = target.get("machine", platform.machine())
    if machine != platform.machine():
        raise ArtifactError(
            f"{library}: built for {machine}, this machine is {platform.machine()}; build it for this one"
        )
    missing = missing_flags(target.get("flags", ()))
    if missing:
        raise ArtifactError(
            f"{library}: built for {target.get('mcpu')}, this processor, {processor_name()}, lacks "
            f"{', '.join(missing)}; "
            "build it here, or with `--target avx2` or `--target plain`"
        )


@contextmanager
def watching(vm: Any, on_call: Callable[..., int]) -> Iterator[None]:
    """Within it the virtual machine tells `on_call` of every call, before and after: see TVM's `vm.set_instrument`."""
    vm.set_instrument(on_call)
    try:
        yield
    finally:
        vm.set_instrument(lambda *_: 0)


@contextmanager
def _fresh_path(library: Path) -> Iterator[Path]:
    """A path at which this process has loaded nothing yet: `library`, or from the second time on that of a copy.

    The system's loader knows libraries by their paths: built again at the same path, it would be the old one, without a
    word.
    """
    if library not in _loaded:
        _loaded.add(library)
        yield library
        return
    with tempfile.TemporaryDirectory(prefix="bitroad-") as folder:
        yield Path(shutil.copy(library, folder))


def load_tvm() -> Any:
    """The module `tvm`, imported the light way if this is its first import in the process.

    TVM's runtime library alone is 3 MB against 260 MB with the compiler. And `tvm_ffi` imports torch wherever it is
    installed, to exchange tensors with it, which costs seconds and is never used here: it is hidden for that moment.
    """
    if "tvm" not in sys.modules:
        with _runtime_only():
            importlib.import_module("tvm")
    return sys.modules["tvm"]


@contextmanager
def _runtime_only() -> Iterator[None]:
    hide_torch = "torch" not in sys.modules
    before = os.environ.get("TVM_USE_RUNTIME_LIB")
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"
    if hide_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # documented: makes `import torch` raise ImportError
    try:
        yield
    finally:
        if hide_torch:
            del sys.modules["torch"]
        # TVM has read it; a child process that wants to compile must not inherit it
        if before is None:
            del os.environ["TVM_USE_RUNTIME_LIB"]
        else:
            os.environ["TVM_USE_RUNTIME_LIB"] = before


def set_threads(threads: int) -> None:
    """Limits TVM to this many threads, for the whole process. UsageError below 1."""
    if threads < 1:
        raise UsageError(f"the number of threads must be at least 1, is {threads}")
    tvm = load_tvm()
    # half a second of looking for work, TVM's own choice, keeps a processor from others, and the process from ending
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPIN_COUNT)
    # TVM starts its threads on their first use, one for every second processor: it takes the others for hyper-threads
    os.environ["TVM_NUM_THREADS"] = str(max(threads, os.cpu_count() or 1))
    big_cores = 1
    tvm.get_global_func("runtime.config_threadpool")(big_cores, threads)
    if threads == 1:  # in whichever thread of Python a kernel runs, TVM then starts none of its own
        os.environ["TVM_NUM_THREADS"] = "1"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
