"""From an export that still has batch norms (step 0 or 1) to a Q/DQ model in step 2's place: fold, calibrate, write.

Activation scales that the graph carries (from quantization training) stay. Where it carries none (plain float training)
each tensor gets the power of two with the smallest squared error over the calibration pictures; the maps of a task's
scores share one, so do those of its deltas. Whether channels are equalized and biases corrected is decided by what the
outputs lose against float on the pictures; `calibration.json` tells how much that is, by output and by layer.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from tvm import relax

from compile import float_loss
from compile.errors import CompileError
from compile.float_loss import FloatLoss, Loss
from compile.graph import Graph
from compile.importer import ImportedModel, import_onnx, read_onnx
from compile.onnx_writer import to_onnx
from compile.passes.equalize_channels import EqualizeChannels, links
from compile.passes.fold_batch_norm import FoldBatchNorm, batch_norm_names
from compile.passes.place_activation_scales import tensors_without_scale
from compile.pipeline import folding_passes, phase_folder, run_passes, scale_passes
from compile.tensor_statistics import TensorStatistics, best_shifts, runner, statistics_of
from configs import Config
from configs.fusion import absorbing_steps
from runtime.errors import ImageError
from runtime.files import write_atomically
from runtime.geometry import Placement
from runtime.image import find_inputs, read_picture
from runtime.schema import InputGeometry, Reader

SHARED_SCALE = re.compile(r"(?P<task>.+)\.(?P<part>score|delta)_s\d+")
REPORT = "calibration.json"
COMPARED = 32  # pictures, at most, on which a way is compared with float


def calibrated_model(config: Config, source: Path, options: argparse.Namespace, target: Path, console: Console) -> None:
    """Writes `target`, the Q/DQ ONNX made of the export `source`, and the report beside it where scales were chosen.

    Raises CompileError or ConfigError.
    """
    folded = folded_model(config, source, options, console)
    dump = phase_folder(options.dump, "2-scales")
    if not tensors_without_scale(folded.module):
        model = quantized_model(folded, {}, {}, dump)
        target.with_name(REPORT).unlink(missing_ok=True)  # of another source
    else:
        pictures = Pictures(config, options.calib_images, len(tensors_without_scale(folded.module)), console)
        results = every_way(folded, pictures)
        way, make, loss = min(results, key=lambda result: result.loss.noise)
        model = make(dump)
        noise = {result.way.name: round(result.loss.noise, 6) for result in results}
        console.print(f"{way.name}: the outputs lose least so, of {', '.join(noise)}")
        console.print(loss.table())
        console.print(f"worst layers (cosine with float): {loss.worst_layers()}")
        facts = {"pictures": len(pictures.compared), "way": way.name, "noise": noise}
        float_loss.write(target.with_name(REPORT), loss, facts)
    write_atomically(target, model.SerializeToString(deterministic=True))
    console.print(f"wrote {target}")


def folded_model(config: Config, source: Path, options: argparse.Namespace, console: Console) -> ImportedModel:
    """The export without its batch norms."""
    imported = import_onnx(read_onnx(source))
    step = 2 if options.source == "fusion-bn-c1" else 1
    patterns = {number: entries for number, entries in config.fusion_bn_patterns.items() if number >= step}
    absorbing_steps(patterns, batch_norm_names(imported.module), file=config.file)
    parameters = dict(imported.parameters)
    fold = FoldBatchNorm(parameters)
    module = run_passes(imported.module, folding_passes(fold), phase_folder(options.dump, "1-folding"))
    console.print(f"folded {fold.folded} batch norms")
    return ImportedModel(module, parameters, imported.output_names)


class Way(NamedTuple):
    """How a float model is quantized."""

    equalized: bool
    corrected: bool

    @property
    def name(self) -> str:
        """For people and the report."""
        parts = [part for part, done in (("channels equalized", self[0]), ("biases corrected", self[1])) if done]
        return " and ".join(parts) or "scales alone"


PLAIN = Way(equalized=False, corrected=False)


class Result(NamedTuple):
    """A way, how it makes the model (given where to dump the passes' modules), and what that loses against float."""

    way: Way
    make: Callable[[Path | None], onnx.ModelProto]
    loss: FloatLoss


def every_way(folded: ImportedModel, pictures: "Pictures") -> list[Result]:
    """The model quantized in each way."""
    names = linked(folded)
    peaks = {name: entry.peaks for name, entry in statistics(folded, pictures, names).items()} if names else {}
    results = []
    for equalized in (False, True) if peaks else (False,):
        prepared = equalized_model(folded, peaks) if equalized else folded
        names = [str(var.name) for var in tensors_without_scale(prepared.module)]
        image = str(prepared.module["main"].params[0].name)
        found = statistics(prepared, pictures, [*names, image])
        means = {name: entry.means for name, entry in found.items()}
        shifts = best_shifts({name: found[name] for name in names}, scale_groups(prepared))
        makers, models = {}, []
        for way in (Way(equalized, corrected=False), Way(equalized, corrected=True)):
            make = partial(quantized_model, prepared, shifts, means if way.corrected else {})
            try:
                models.append(make(None))
                makers[way] = make
            except CompileError:
                if way == PLAIN:
                    raise  # another way that leads out of the range of shifts is none
        losses = losses_of(prepared, models, names, pictures)
        results += [Result(way, make, loss) for (way, make), loss in zip(makers.items(), losses, strict=True)]
    return results


def statistics(model: ImportedModel, pictures: "Pictures", names: Sequence[str]) -> dict[str, TensorStatistics]:
    """Of these tensors of a float model on all pictures."""
    run = runner(to_onnx(model.module, model.parameters, model.output_names), names, "the folded model")
    return statistics_of(run, names, pictures.every())


def linked(model: ImportedModel) -> list[str]:
    """Names of the tensors whose channels can be equalized."""
    return [str(link.tensor.name) for link in links(model.module)]


def equalized_model(folded: ImportedModel, peaks: dict[str, NDArray[np.float32]]) -> ImportedModel:
    """The same float function with other weights."""
    parameters = dict(folded.parameters)
    module = run_passes(folded.module, [EqualizeChannels(parameters, peaks)], None)
    return ImportedModel(module, parameters, folded.output_names)


def quantized_model(
    folded: ImportedModel, shifts: dict[str, int], means: dict[str, NDArray[np.float64]], dump: Path | None
) -> onnx.ModelProto:
    """The Q/DQ model with these shifts, by the name of the float tensor; biases corrected by the means, if any."""
    parameters = dict(folded.parameters)
    passes = scale_passes(parameters, lambda var: shifts[str(var.name)], means)
    module = run_passes(folded.module, passes, dump)
    return to_onnx(module, parameters, folded.output_names)


def losses_of(
    folded: ImportedModel, quantized: Sequence[onnx.ModelProto], names: Sequence[str], pictures: "Pictures"
) -> list[FloatLoss]:
    """What quantized models lose against the float one that they were made of."""
    graph = Graph(folded.module)
    outputs = {str(var.name) for var in graph.outputs}
    of_layer = {name: f"{name}.dequantized" for name in names if name not in outputs}
    exact = runner(
        to_onnx(folded.module, folded.parameters, folded.output_names),
        [*of_layer, *folded.output_names],
        "the folded model",
    )
    compared = [*of_layer.values(), *folded.output_names]
    rounded = [runner(model, compared, "the calibrated model") for model in quantized]
    losses = float_loss.measure(exact, rounded, of_layer, folded.output_names, pictures.compare())
    return [FloatLoss(loss.outputs, by_layer(graph, loss.layers)) for loss in losses]


def by_layer(graph: Graph, losses: Mapping[str, Loss]) -> dict[str, Loss]:
    """By the layers' names what comes by the tensors'."""
    var_of = {str(var.name): var for var in graph.value_of}
    layers: dict[str, Loss] = {}
    for name, entry in losses.items():
        layer = layer_of(graph, var_of[name])
        layers[name if layer in layers else layer] = entry  # convolutions that share a weight share its name
    return layers


def layer_of(graph: Graph, var: relax.Var) -> str:
    """A float tensor's layer, for people: the convolution whose result or sum it is, else the tensor's own name."""
    source = graph.value_of[var].args[0] if graph.operator(var) == "relax.nn.relu" else var
    if graph.operator(source) == "relax.add" and graph.bias_of(source) is None:
        source = next((x for x in graph.value_of[source].args if graph.is_bare_convolution(x)), source)
    if graph.bias_of(source) is not None:
        source = graph.value_of[source].args[0]
    if graph.operator(source) == "relax.nn.conv2d":
        return str(graph.value_of[source].args[1].name).removesuffix(".weight")
    return str(var.name)


def scale_groups(folded: ImportedModel) -> dict[str, str]:
    """Variable -> the group whose scale it shares: all score maps of a task, all its delta maps."""
    groups = {}
    for var, name in zip(Graph(folded.module).outputs, folded.output_names, strict=True):
        match = SHARED_SCALE.fullmatch(name)
        if match:
            groups[str(var.name)] = f"{match['task']}.{match['part']}"
    return groups


class Pictures:
    """The calibration pictures as network inputs, uint8 (1, H, W, 3), read anew each time. Raises CompileError where
    there are none, and naming what cannot be read.
    """

    def __init__(self, config: Config, folder: Path | None, tensors: int, console: Console) -> None:
        if folder is None:
            raise CompileError(
                f"{tensors} tensors carry no scale (a float-trained model); give pictures to calibrate on: "
                "--calib-images DIR"
            )
        self._paths, _, complaints = find_inputs([folder])
        if not self._paths:
            raise CompileError(
                "; ".join(message for _, message in complaints)
                or f"{folder}: no pictures to calibrate on; give a folder of JPEG or PNG files"
            )
        self._geometry = InputGeometry.from_json(Reader(config.deployment()["input"], config.file))
        self._console = console
        self.compared = self._paths[:: -(-len(self._paths) // COMPARED)]

    def every(self) -> Iterator[NDArray[np.uint8]]:
        """All of them."""
        return self._read(self._paths, "calibrating")

    def compare(self) -> Iterator[NDArray[np.uint8]]:
        """At most COMPARED of them, evenly."""
        return self._read(self.compared, "comparing with float")

    def _read(self, paths: Sequence[Path], description: str) -> Iterator[NDArray[np.uint8]]:
        for path in track(paths, description=description, console=self._console, transient=True):
            try:
                picture = read_picture(path)
            except ImageError as error:
                raise CompileError(f"--calib-images: {error}") from error
            yield Placement.of((picture.shape[0], picture.shape[1]), self._geometry).network_input(picture)
