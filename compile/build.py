"""`python -m compile.build`: from a step's export to the integer module and the compiled model (step 3)."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from rich.console import Console
from tvm import relax

from compile.calibrate import calibrated_model
from compile.certify import certify
from compile.errors import CompileError
from compile.files import Parameters, load_pair, pair_of, parameter_digests, save_pair
from compile.foreign.build import build_foreign
from compile.importer import import_onnx, read_onnx
from compile.kernel_plan import layer_entries
from compile.linking import export_library, find_compiler
from compile.package import ModelCard, card_of, with_card
from compile.pipeline import compile_module, to_integer_module
from compile.targets import NAMES, Target, find_target
from configs import Config, ConfigError, load
from quant.certificate import LayerBound
from quant.errors import QuantError
from runtime.artifact import SCHEMA_VERSION, Manifest, file_sha256
from runtime.errors import ArtifactError

SOURCES = ("fusion-bn-c2", "fusion-bn-c1", "with-bn", "int-inference")
STEP_3 = "int-inference-export-last"
CALIBRATED = "calibrated-export-last.onnx"


def step_2_path(run: Path, source: str) -> Path:
    """The ONNX that the compiled model must equal: step 2's export, or what calibration made of an earlier one."""
    return run / (f"{source}-export-last.onnx" if source == "fusion-bn-c2" else CALIBRATED)


def build_integer_module(config: Config, run: Path, step_2: Path, dump: Path | None) -> None:
    """Step 2's ONNX -> `int-inference-export-last-symbol.json` and `-0000.params` in `run`."""
    deployment = config.deployment()
    imported = import_onnx(read_onnx(step_2))
    check_input_size(imported.module, deployment["input"], step_2)
    module, parameters, tensor_of_layer, description = to_integer_module(imported, deployment["tasks"], dump)
    certify(module, parameters)
    card = ModelCard(
        input=deployment["input"],
        uses_im_hw=deployment["uses_im_hw"],
        tasks=description.tasks,
        outputs=description.outputs,
        tensor_of_layer=tensor_of_layer,
        source={step_2.name: file_sha256(step_2)},
        parameter_digests=parameter_digests(parameters),
    )
    save_pair(run / STEP_3, with_card(module, card), parameters)


def check_input_size(module: tvm.IRModule, geometry: dict[str, Any], path: Path) -> None:
    """Raises CompileError where the model in `path` was exported for another input than the config's."""
    found = tuple(int(size) for size in module["main"].params[0].ty.shape)
    wanted = (1, 3, geometry["height"], geometry["width"])
    if found != wanted:
        raise CompileError(
            f"{path}: its input is {found}, the config's int_inference_export_input_shape asks for {wanted}; "
            "export again with this config"
        )


@dataclass(frozen=True)
class Compiled:
    """The pair of step 3 as code, with what it was made of."""

    executable: relax.VMExecutable
    module: tvm.IRModule
    parameters: Parameters
    card: ModelCard
    bounds: list[LayerBound]


def compile_pair(run: Path, target: Target, dump: Path | None, console: Console) -> Compiled:
    """The pair of step 3, and nothing else -> code; says how safe it is, and whether somebody changed it."""
    symbol, params = pair_of(run / STEP_3)
    module, parameters = load_pair(run / STEP_3)
    card = card_of(module, str(symbol))
    bounds = certify(module, parameters)
    report_certificate(bounds, console)
    report_changed_parameters(card, parameters, params, console)
    return Compiled(compile_module(module, parameters, target, dump), module, parameters, card, bounds)


def build_objects(run: Path, target: Target, dump: Path | None, console: Console) -> Path:
    """A `.tar` of object files for another kind of machine, to be linked there."""
    objects = run / f"{STEP_3}-{target.name}.tar"
    compile_pair(run, target, dump, console).executable.export_library(str(objects))
    return objects


def build_library(run: Path, target: Target, dump: Path | None, console: Console) -> Manifest:
    """The `.so` and its `.json`."""
    compiled = compile_pair(run, target, dump, console)
    library = run / f"{STEP_3}.so"
    export_library(compiled.executable, library)
    pair = {path.name: file_sha256(path) for path in pair_of(run / STEP_3)}
    manifest = Manifest.from_json(
        {
            **description(compiled.module, compiled.parameters, compiled.card, compiled.bounds),
            "target": target.to_json(),
            "library_sha256": file_sha256(library),
            "sources": {**compiled.card.source, **pair},
        },
        str(library.with_suffix(".json")),
    )
    manifest.save(library.with_suffix(".json"))
    return manifest


def description(
    module: tvm.IRModule, parameters: Parameters, card: ModelCard, bounds: list[LayerBound]
) -> dict[str, Any]:
    """The part of the manifest that follows from the integer module and its weights alone."""
    return {
        "schema_version": SCHEMA_VERSION,
        "input": card.input,
        "uses_im_hw": card.uses_im_hw,
        "tasks": card.tasks,
        "outputs": card.outputs,
        "layers": describe_layers(module, parameters, card),
        "certificate": [bound.to_json() for bound in bounds],
    }


def describe_layers(module: tvm.IRModule, parameters: Parameters, card: ModelCard) -> list[dict[str, Any]]:
    """The layers in the order of their kernel calls, each with the tensor of step 2 that it must equal."""
    entries = layer_entries(module, parameters)
    return [{**entry, "tensor": card.tensor_of_layer.get(entry["name"])} for entry in entries]


def report_certificate(bounds: list[LayerBound], console: Console) -> None:
    """Prints how close the model comes to the limit of exact float sums, and in which layer."""
    worst = max(bounds, key=lambda bound: bound.float_bound)
    console.print(
        f"certificate: {len(bounds)} layers proven exact; the largest sum is {worst.float_bound} of 2^24 "
        f"({worst.float_bound / 2**24:.1%}) in {worst.name}; every bound is in {STEP_3}.json"
    )


def report_changed_parameters(card: ModelCard, parameters: Parameters, path: Path, console: Console) -> None:
    """Warns of weights that somebody replaced after ToInteger."""
    changed = changed_parameters(card, parameters)
    if changed:
        console.print(
            f"warning: {path}: {', '.join(changed)} differ{'s' if len(changed) == 1 else ''} from the source "
            f"({', '.join(card.source)}); the model built now is not step 2's"
        )


def changed_parameters(card: ModelCard, parameters: Parameters) -> list[str]:
    """Names of the weights that are not those that ToInteger made of the source."""
    digests = parameter_digests(parameters)
    return sorted(name for name, digest in digests.items() if card.parameter_digests.get(name) != digest)


def build(options: argparse.Namespace, console: Console) -> None:
    """What the command does; all that can be refused without work is refused before any."""
    target = find_target(options.target)
    if options.onnx is not None:
        build_foreign(options.onnx, options.out, target, console)
        return
    config = load(options.config)
    run: Path = options.out
    if not target.is_foreign:
        find_compiler()
    if options.source != "int-inference":
        step_2 = step_2_path(run, options.source)
        if options.source != "fusion-bn-c2":
            console.print(f"folding and calibrating {options.source}-export-last.onnx")
            calibrated_model(config, run / f"{options.source}-export-last.onnx", options, step_2, console)
        console.print(f"step 2: {step_2}")
        build_integer_module(config, run, step_2, options.dump)
        console.print(f"wrote {' and '.join(str(path) for path in pair_of(run / STEP_3))}")
    if target.is_foreign:
        objects = build_objects(run, target, options.dump, console)
        console.print(f"wrote {objects}: objects for {target.mcpu}, to be linked there with `g++ -shared`")
        return
    manifest = build_library(run, target, options.dump, console)
    console.print(
        f"wrote {run / STEP_3}.so and .json: {len(manifest.layers)} layers for {manifest.target['mcpu']}, "
        f"{(run / f'{STEP_3}.so').stat().st_size / 1e6:.1f} MB"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None stands for the process's own."""
    parser = argparse.ArgumentParser(prog="python -m compile.build", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="C", help="the config that the run was trained with")
    what.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="a quantized model of others: any ONNX with Q/DQ nodes, symmetric int8 (docs/foreign.md); of the other "
        "options --out, a folder to write to, and --target count",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="the run's folder, with the step's export"
    )
    parser.add_argument(
        "--source", choices=SOURCES, default="fusion-bn-c2", help="what to build from (default: %(default)s)"
    )
    parser.add_argument(
        "--calib-images", type=Path, metavar="DIR", help="pictures that place the scales of a float model"
    )
    parser.add_argument("--target", choices=NAMES, default="native", help="processor family (default: %(default)s)")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write the module after every pass here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 built, 2 refused with the reason, 130 interrupted."""
    options = parse(arguments)
    try:
        build(options, Console(highlight=False, soft_wrap=True))
    except (CompileError, ConfigError, QuantError, ArtifactError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; files already written are whole", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
