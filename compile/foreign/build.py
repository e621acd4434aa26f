"""`compile.build --onnx FILE`: a foreign model to a `.so`, checked against the reference and compared with float."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
import tvm
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tvm import relax

from compile.errors import CompileError
from compile.files import first_line
from compile.foreign import reference
from compile.foreign.model import read_foreign
from compile.foreign.network import Network, Output
from compile.foreign.operators import read_network
from compile.foreign.relax_writer import to_relax
from compile.linking import export_library, find_compiler
from compile.targets import Target
from compile.witness import float_kernels, open_session
from quant.arith import INT8_MAX, INT8_MIN
from runtime.artifact import file_sha256
from runtime.errors import ArtifactError
from runtime.processor import missing_flags
from runtime.tensor_model import TensorManifest, TensorModel, TensorSpec

TRIED = 16  # inputs that the compiled model is tried on
SEED = 0


def build_foreign(path: Path, folder: Path, target: Target, console: Console) -> Path:
    """Writes `<name>.so` and `.json` of the ONNX to `folder`, in place of those that an earlier build left; returns
    the `.so`. Raises CompileError.
    """
    model = read_foreign(path)
    network = read_network(model)
    if target.is_foreign:
        raise CompileError(f"--target {target.name}: a foreign model is built for this machine only; use native")
    missing = missing_flags(target.flags)
    if missing:
        raise CompileError(f"--target {target.name}: this processor has no {', '.join(missing)}; use native")
    find_compiler()
    session = open_session(model.proto, float_kernels(), where=str(path))
    console.print(f"{path}: {len(network.layers)} layers, input {network.input_name} {network.input_shape}")
    library = folder / f"{path.stem}.so"
    description = library.with_suffix(".json")
    if description.exists():
        refuse_other_file(description)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="unfinished-", dir=folder) as unfinished:  # nobody shall run what was not compared
        built = Path(unfinished) / library.name
        export_library(compiled(network, target, path), built)
        manifest_of(network, target, built, path).save(built.with_suffix(".json"))
        report(path, session, network, TensorModel(built), console)
        built.replace(library)
        built.with_suffix(".json").replace(description)
    console.print(f"wrote {library} and {description.name}")
    return library


def refuse_other_file(description: Path) -> None:
    """Raises CompileError unless it is one of ours: any file may be called so."""
    try:
        TensorManifest.load(description)
    except ArtifactError as error:
        raise CompileError(
            f"{description}: is there, and no description of a foreign model; choose another --out"
        ) from error


def compiled(network: Network, target: Target, path: Path) -> relax.VMExecutable:
    """Machine code. Raises CompileError."""
    try:
        return tvm.compile(to_relax(network), target.llvm())
    except Exception as error:  # TVM raises whatever its passes meet
        raise CompileError(f"{path}: TVM cannot compile it ({first_line(error)}); report this model") from error


def manifest_of(network: Network, target: Target, library: Path, source: Path) -> TensorManifest:
    """The description of a built library."""
    tensors = network.tensors
    outputs = [
        TensorSpec(entry.name, entry.shape, "int64" if entry.argmax else "float32", tensors[entry.tensor].scale)
        for entry in network.outputs
    ]
    layers = [
        {"name": layer.output.name, "kind": type(layer.kind).__name__, "node": layer.node} for layer in network.layers
    ]
    return TensorManifest(
        input=TensorSpec(network.input_name, network.input_shape, "float32", network.input.scale),
        outputs=tuple(outputs),
        layers=tuple(layers),
        target=target.to_json(),
        library_sha256=file_sha256(library),
        sources={source.name: file_sha256(source)},
    )


@dataclass
class Difference:
    """Of one output from float, over all inputs: elements, those that differ, by how many steps at most, and places
    whose largest channel is another.
    """

    elements: int = 0
    differing: int = 0
    steps: float = 0.0
    places: int = 0
    other_class: int = 0

    def add(self, ours: NDArray[Any], theirs: NDArray[Any], scale: float) -> None:
        """One input's."""
        self.elements += ours.size
        self.differing += int((ours != theirs).sum())
        self.steps = max(self.steps, float(np.abs(ours - theirs).max() / scale))
        if ours.dtype == np.float32 and ours.shape[1] > 1:
            self.places += ours.size // ours.shape[1]
            self.other_class += int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())


def report(
    path: Path, session: ort.InferenceSession, network: Network, compiled: TensorModel, console: Console
) -> None:
    """Compares the compiled model with the reference arithmetic, which it must equal, and with ONNX Runtime's float
    execution of the graph, which it need not. Raises CompileError where it is not the reference.
    """
    differences = {entry.name: Difference() for entry in network.outputs}
    for picture in track(inputs(network), description="comparing", total=TRIED, console=console, transient=True):
        ours, exact = compiled.run(picture), reference.run(network, picture)
        theirs = session.run(list(differences), {network.input_name: picture})
        for entry, value in zip(network.outputs, theirs, strict=True):
            if not np.array_equal(ours[entry.name], exact[entry.name]):
                raise CompileError(
                    f"{path}: output {entry.name} of the compiled model is not the reference's; report this model"
                )
            differences[entry.name].add(ours[entry.name], value, step_of(network, entry))
    table = Table("output", "elements", "differ", "largest, in steps", "another largest channel")
    for name, found in differences.items():
        classes = f"{found.other_class} of {found.places}" if found.places else ""
        table.add_row(name, f"{found.elements:,}", f"{found.differing:,}", f"{found.steps:.0f}", classes)
    console.print(f"equal to the reference arithmetic on {TRIED} random inputs; compared with ONNX Runtime in float:")
    console.print(table)


def inputs(network: Network) -> Iterator[NDArray[np.float32]]:
    """Random pictures over the range that the input's scale has room for, in squares of 8 pixels with noise."""
    rng = np.random.default_rng(SEED)
    batch, channels, height, width = network.input_shape
    for _ in range(TRIED):
        squares = rng.uniform(INT8_MIN, INT8_MAX, (batch, channels, -(-height // 8), -(-width // 8)))
        smooth = squares.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
        noise = rng.uniform(INT8_MIN, INT8_MAX, network.input_shape)
        yield (network.input.scale * (0.7 * smooth + 0.3 * noise)).astype(np.float32)


def step_of(network: Network, output: Output) -> float:
    """What one step of an output's integers is; of an index, 1."""
    return 1.0 if output.argmax else network.tensors[output.tensor].scale
