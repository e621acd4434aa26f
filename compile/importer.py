"""ONNX of steps 0 to 2 -> Relax, every tensor under its ONNX name.

`python -m compile.importer FILE.onnx` writes the Relax pair beside the file.

TVM's importer keeps the names of weights but not those of intermediate tensors. So before the import every intermediate
that a later report may name becomes an extra output of the ONNX graph; afterwards the extra outputs go and their names
stay on the Relax variables.
"""

import argparse
import sys
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.onnx import from_onnx

from compile.errors import CompileError
from compile.files import Parameters, first_line, pair_of, save_pair
from compile.rewrite import bindings_of, main_function, substitute

# What the export of steps 0 to 2 consists of, and the plumbing that exporters put between.
SUPPORTED_OPS = frozenset(
    {"Conv", "BatchNormalization", "Relu", "Add", "Resize", "Slice", "Concat", "AveragePool"}
    | {"QuantizeLinear", "DequantizeLinear", "Constant", "Identity"}
)
WEIGHT_INPUTS = defaultdict(
    tuple, Conv=(1, 2), BatchNormalization=(1, 2, 3, 4), QuantizeLinear=(0,), DequantizeLinear=(0,)
)
NAMED_OPS = SUPPORTED_OPS - {"DequantizeLinear", "Constant"}


@dataclass(frozen=True)
class ImportedModel:
    """A step's model in Relax: `main(image, weights...) -> tuple of outputs`.

    `parameters` are the weights by dotted name, `output_names` the outputs' names in order.
    """

    module: tvm.IRModule
    parameters: Parameters
    output_names: tuple[str, ...]


def read_onnx(path: Path) -> onnx.ModelProto:
    """Reads and checks an ONNX file: a convolution and at least one more layer, of SUPPORTED_OPS only.

    Raises CompileError naming the file and, for a foreign op, the node.
    """
    if not path.is_file():
        raise CompileError(f"{path}: no such file; `python -m train.train` writes it at the end of a step")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:
        raise CompileError(f"{path}: not a valid ONNX model ({first_line(error)}); export it again") from error
    check_input(model, path)
    for node in model.graph.node:
        if node.op_type not in SUPPORTED_OPS:
            raise CompileError(
                f"{path}: node {node.name or node.output[0]} is a {node.op_type}, which step 3 has no integer form "
                f"for; export a model of {', '.join(sorted(SUPPORTED_OPS))} only"
            )
    kinds = [node.op_type for node in model.graph.node if node.op_type in NAMED_OPS]
    if "Conv" not in kinds or len(kinds) < 2:
        raise CompileError(f"{path}: no network, its nodes are {', '.join(kinds) or 'none'}; export it again")
    return model


def check_input(model: onnx.ModelProto, path: Path) -> None:
    """Raises CompileError unless the picture, of a fixed size, is the only input."""
    parameters = {initializer.name for initializer in model.graph.initializer}
    inputs = {entry.name: entry.type.tensor_type for entry in model.graph.input if entry.name not in parameters}
    sizes = [size.dim_value for tensor in inputs.values() for size in tensor.shape.dim]
    if list(inputs) != ["image"] or len(sizes) != 4 or not all(size > 0 for size in sizes):
        raise CompileError(
            f"{path}: its inputs are {', '.join(inputs)}, step 3 needs the one input image, float32 (1, 3, H, W) of a "
            "fixed size; export it again"
        )


def import_onnx(model: onnx.ModelProto) -> ImportedModel:
    """Imports a checked model; batch size and picture size are those of the export."""
    output_names = tuple(output.name for output in model.graph.output)
    initializers = {initializer.name for initializer in model.graph.initializer}
    named = [name for node in model.graph.node if node.op_type in NAMED_OPS for name in node.output[:1]]
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    literals_to_initializers(extended)
    for name in named:
        if name not in output_names and name not in initializers:
            extended.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the extra outputs, whose types nobody declared
        try:
            module = from_onnx(extended, keep_params_in_input=True)
        except Exception as error:  # TVM raises whatever its converters meet
            raise CompileError(f"TVM cannot import the model ({first_line(error)}); export it again") from error
    module, tensors = detach_params(module)
    all_names = [output.name for output in extended.graph.output]
    module = keep_names(module, all_names, len(output_names))
    weights = list(module["main"].params)[int(module["main"].attrs["num_input"]) :]
    parameters = {var.name: value.numpy() for var, value in zip(weights, tensors["main"], strict=True)}
    return ImportedModel(module, parameters, output_names)


def literals_to_initializers(model: onnx.ModelProto) -> None:
    """Weights that an exporter wrote as Constant nodes become initializers, in place: they keep their names then."""
    weights = set()
    for node in model.graph.node:
        weights |= {node.input[place] for place in WEIGHT_INPUTS[node.op_type] if place < len(node.input)}
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        if node.output[0] in weights and node.attribute[0].name == "value":
            model.graph.initializer.append(node.attribute[0].t)
            model.graph.initializer[-1].name = node.output[0]
            model.graph.node.remove(node)


def keep_names(module: tvm.IRModule, names: list[str], output_count: int) -> tvm.IRModule:
    """Puts the ONNX names on the variables and takes the extra outputs away.

    Before: outputs 0.. under `names`, variables lv0, lv1, ... After: the first `output_count` outputs, variables under
    their ONNX names.
    """
    main = module["main"]
    *bindings, last = bindings_of(main)
    returned = last.value
    name_of: dict[relax.Var, str] = {}
    for field, name in zip(returned.fields, names, strict=True):
        name_of.setdefault(field, name)

    replacement: dict[relax.Var, relax.Expr] = {}
    renamed: list[tuple[relax.Var, relax.Expr]] = []
    for binding in bindings:
        var = relax.DataflowVar(name_of.get(binding.var, binding.var.name), binding.var.ty)
        renamed.append((var, substitute(binding.value, replacement)))
        replacement[binding.var] = var
    outputs = [substitute(field, replacement) for field in returned.fields[:output_count]]
    function = main_function(list(main.params), renamed, outputs, {"num_input": int(main.attrs["num_input"])})
    return relax.transform.DeadCodeElimination()(tvm.IRModule({relax.GlobalVar("main"): function}))


def constant_value(expr: relax.Expr, parameters: Parameters) -> np.ndarray | None:
    """The value of a weight variable or a literal; None for anything computed."""
    if isinstance(expr, GenericConst):
        return expr.value.numpy()
    if isinstance(expr, relax.Var):
        return parameters.get(expr.name)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 refused with the reason, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m compile.importer", description=__doc__.splitlines()[0])
    parser.add_argument("onnx", type=Path, help="RUN/<prefix>-export-last.onnx")
    options = parser.parse_args(arguments)
    try:
        imported = import_onnx(read_onnx(options.onnx))
        prefix = options.onnx.with_suffix("")
        save_pair(prefix, imported.module, imported.parameters)
    except (CompileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; files already written are whole", file=sys.stderr)
        return 130
    print(f"wrote {', '.join(str(path) for path in pair_of(prefix))} ({len(imported.parameters)} parameters)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
