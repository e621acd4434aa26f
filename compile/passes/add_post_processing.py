"""AddPostProcessing: behind the heads come the ops that turn them into boxes and masks.

    Before   main(picture, weights...) -> (head maps int8 ...)
    After    main(picture[, im_hw], weights...) -> (head maps ..., per task boxes and packed, or mask)
             scores = flatten_maps(score maps), deltas = flatten_maps(delta maps)          (N, classes) and (N, 4)
             boxes, packed = call_tir(DetectionPostProcessing_X2, (scores, deltas, exp_table, anchors, levels, im_hw))
             mask = channel_argmax(logits)

Requires: an integer graph whose outputs are named `<task>.score_s<stride>`, `<task>.delta_s<stride>` and
`<task>.logits`. Ensures: an output of every kind for every task; tables and anchors are parameters, `<task>.exp_table`
and so on; `im_hw` is an input only where a task detects. The tasks' description, with what the shifts decide, is left
in `description`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from compile.certify import layer_calls
from compile.errors import CompileError
from compile.files import Parameters
from compile.layers import ChannelArgmax, FlattenMaps, Layer
from compile.ops.detection import detection_function, level_table
from compile.rewrite import bindings_of, main_function, shape_of, typed_global
from quant.postprocess import (
    RECORD_BYTES,
    ROW_FIELDS,
    DetectionAttributes,
    detection_attributes,
    exp_table,
    sigmoid_table,
)


@dataclass
class Description:
    """What the manifest says of tasks and outputs, JSON-able."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)


@tvm.transform.module_pass(opt_level=0, name="AddPostProcessing")
class AddPostProcessing:
    """See the module's text. `tasks` are the config's deployment entries, `names` those of the module's outputs."""

    def __init__(
        self, parameters: Parameters, tasks: Sequence[Mapping[str, Any]], names: Sequence[str], description: Description
    ) -> None:
        self.parameters = parameters
        self.tasks = tasks
        self.names = names
        self.description = description

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        writer = _Writer(module, self.parameters, dict(zip(self.names, output_fields(module), strict=True)))
        for name, head in writer.heads.items():
            writer.describe_head(name, head, self.task_of(name))
        for task in self.tasks:
            add = writer.add_detection if task["kind"] == "detection" else writer.add_segmentation
            writer.description.tasks.append(add(task))
        self.description.tasks[:] = writer.description.tasks
        self.description.outputs[:] = writer.description.outputs
        return writer.finish()

    def task_of(self, output: str) -> str:
        """Name of the task that an output belongs to. Raises CompileError where there is none."""
        for task in self.tasks:
            if output.startswith(f"{task['name']}."):
                return str(task["name"])
        raise CompileError(
            f"output {output} belongs to no task of the config; build with the config that it was trained with"
        )


def output_fields(module: tvm.IRModule) -> list[relax.Var]:
    """The variables that `main` returns."""
    return list(bindings_of(module["main"])[-1].value.fields)


class _Writer:
    """The bindings and functions that grow behind the heads."""

    def __init__(self, module: tvm.IRModule, parameters: Parameters, heads: dict[str, relax.Var]) -> None:
        self.functions = {var: function for var, function in module.functions.items() if var.name_hint != "main"}
        self.main = module["main"]
        self.bindings = [(binding.var, binding.value) for binding in bindings_of(self.main)[:-1]]
        self.shifts = {call.var: call.layer.out_shift for call in layer_calls(module)}  # type: ignore[union-attr]
        self.layer_functions: dict[tuple[Layer, tuple[tuple[int, ...], ...]], relax.GlobalVar] = {}
        self.parameters = parameters
        self.heads = heads
        self.outputs: list[relax.Expr] = list(heads.values())
        self.weights: list[relax.Var] = []
        self.im_hw: relax.Var | None = None
        self.description = Description()

    def head(self, name: str, channels: int) -> relax.Var:
        """The map of that name. Raises CompileError unless it is there, with as many channels as the config says."""
        if name not in self.heads:
            raise CompileError(f"the model has no output {name}; build with the config that it was trained with")
        found = shape_of(self.heads[name])[3]
        if found != channels:
            raise CompileError(
                f"{name}: the model returns {found} channels, the config's anchors and classes make {channels}; build "
                "with the config that it was trained with"
            )
        return self.heads[name]

    def describe(self, name: str, value: relax.Expr, role: str, task: str, shift: int | None = None) -> None:
        entry = {"name": name, "shape": list(shape_of(value)), "dtype": str(value.ty.dtype), "shift": shift}
        self.description.outputs.append({**entry, "role": role, "task": task})

    def describe_head(self, name: str, head: relax.Var, task: str) -> None:
        self.describe(name, head, "head", task, self.shifts[head])

    def level_maps(self, task: Mapping[str, Any], part: str, fields: int) -> tuple[list[relax.Var], int]:
        """The maps of all strides, with `fields` channels for each anchor, and the one shift that they share.

        Raises CompileError where the shifts differ.
        """
        maps = {
            f"{task['name']}.{part}_s{stride}": len(anchors) * fields
            for stride, anchors in zip(task["strides"], task["anchors"], strict=True)
        }
        found = {name: self.head(name, channels) for name, channels in maps.items()}
        shifts = {name: self.shifts[var] for name, var in found.items()}
        if len(set(shifts.values())) != 1:
            raise CompileError(
                f"{next(iter(maps))}: the maps of all strides need one shift, here are {shifts}; share their quantizer"
            )
        return list(found.values()), next(iter(shifts.values()))

    def bind(self, name: str, value: relax.Expr, ty: relax.Type) -> relax.Var:
        var = relax.DataflowVar(name, ty)
        self.bindings.append((var, value))
        return var

    def call_layer(self, name: str, layer: Layer, inputs: list[relax.Var]) -> relax.Var:
        key = (layer, tuple(shape_of(value) for value in inputs))
        if key not in self.layer_functions:
            function = layer.build(key[1])
            self.layer_functions[key] = typed_global(f"{layer.kind}_{len(self.functions)}", function)
            self.functions[self.layer_functions[key]] = function
        global_var = self.layer_functions[key]
        return self.bind(name, relax.Call(global_var, inputs), self.functions[global_var].ret_ty)

    def weight(self, name: str, value: np.ndarray) -> relax.Var:
        self.parameters[name] = value
        self.weights.append(relax.Var(name, relax.TensorType(value.shape, str(value.dtype))))
        return self.weights[-1]

    def add_detection(self, task: Mapping[str, Any]) -> dict[str, Any]:
        name, classes = str(task["name"]), len(task["classes"])
        score_maps, score_shift = self.level_maps(task, "score", classes)
        delta_maps, delta_shift = self.level_maps(task, "delta", 4)
        attributes = detection_attributes(task, score_shift=score_shift, delta_shift=delta_shift)
        scores = self.call_layer(f"{name}.scores", FlattenMaps(classes), score_maps)
        deltas = self.call_layer(f"{name}.deltas", FlattenMaps(4), delta_maps)
        map_sizes = [(height, width) for _, height, width, _ in map(shape_of, score_maps)]
        boxes, packed = self.call_detection(name, attributes, map_sizes, scores, deltas)
        self.describe(f"{name}.boxes", boxes, "boxes", name)
        self.describe(f"{name}.packed", packed, "packed", name)
        self.outputs += [boxes, packed]
        return {
            **task,
            "box_filter_threshold": attributes.box_filter_threshold,
            "score_shift": score_shift,
            "sigmoid_table": [float(value) for value in sigmoid_table(score_shift)],
        }

    def call_detection(
        self,
        name: str,
        attributes: DetectionAttributes,
        map_sizes: list[tuple[int, int]],
        scores: relax.Var,
        deltas: relax.Var,
    ) -> tuple[relax.Var, relax.Var]:
        """Appends the call and its tables; returns boxes int32 (capacity, 6) and packed uint8."""
        if self.im_hw is None:
            self.im_hw = relax.Var("im_hw", relax.TensorType((1, 2), "int32"))
        function: tirx.PrimFunc = detection_function(attributes, shape_of(scores)[0])
        function_name = f"detection_post_processing_{name}"
        global_var = typed_global(function_name, function)
        self.functions[global_var] = function
        arguments = [
            scores,
            deltas,
            self.weight(f"{name}.exp_table", exp_table(attributes.input_shift, attributes.exp_output_shift)),
            self.weight(f"{name}.anchors", np.array(attributes.anchors, np.int32)),
            self.weight(f"{name}.levels", level_table(attributes, map_sizes)),
            self.im_hw,
        ]
        capacity = attributes.nms_output_bbox_num
        types = [
            relax.TensorType((capacity, ROW_FIELDS), "int32"),
            relax.TensorType((RECORD_BYTES * (1 + capacity),), "uint8"),
        ]
        both = self.bind(
            f"{name}.post_processing", relax.call_tir(global_var, arguments, types), relax.TupleType(types)
        )
        boxes = self.bind(f"{name}.boxes", relax.TupleGetItem(both, 0), types[0])
        packed = self.bind(f"{name}.packed", relax.TupleGetItem(both, 1), types[1])
        return boxes, packed

    def add_segmentation(self, task: Mapping[str, Any]) -> dict[str, Any]:
        name = str(task["name"])
        mask = self.call_layer(f"{name}.mask", ChannelArgmax(), [self.head(f"{name}.logits", len(task["classes"]))])
        self.describe(f"{name}.mask", mask, "mask", name)
        self.outputs.append(mask)
        return dict(task)

    def finish(self) -> tvm.IRModule:
        picture, *weights = self.main.params
        inputs = [picture] if self.im_hw is None else [picture, self.im_hw]
        main = main_function(
            [*inputs, *weights, *self.weights], self.bindings, self.outputs, {"num_input": len(inputs)}
        )
        return tvm.IRModule({relax.GlobalVar("main"): main, **self.functions})
