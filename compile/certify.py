"""The exactness certificate of an integer module: a bound per convolution, add, concat and pool.

The bounds come from the very weights that are built.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import tvm
from tvm import relax

from compile.files import Parameters
from compile.layers import AddLayer, AveragePool, ConcatLayer, ConvLayer, Layer, Upsample2x, layer_of
from compile.rewrite import bindings_of
from quant.arith import INT8_MAX, INT8_MIN, MAX_RIGHT_SHIFT
from quant.certificate import CertificateError, LayerBound, add_bound, check, concat_bound, conv_bound, pool_bound

SUMMING = (ConvLayer, AddLayer, ConcatLayer, AveragePool)  # the layers that round
MAX_ALIGNMENT = 30  # beyond it the bound itself, reckoned in int64, could wrap around
MAX_LEFT_SHIFT = 24  # -128 · 2^24 is the least int32


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer in `main`: the variable it defines (named after the layer), its settings, its arguments."""

    var: relax.Var
    layer: Layer
    arguments: tuple[relax.Expr, ...]
    function: str

    @property
    def name(self) -> str:
        return str(self.var.name)


def layer_calls(module: tvm.IRModule) -> Iterator[LayerCall]:
    """The calls of layer functions in the order of execution; other bindings are passed over."""
    for binding in bindings_of(module["main"]):
        value = binding.value
        if isinstance(value, relax.Call) and isinstance(value.op, relax.GlobalVar):
            function = module[value.op]
            if isinstance(function, relax.Function):
                yield LayerCall(binding.var, layer_of(function), tuple(value.args), str(value.op.name_hint))


def certify(module: tvm.IRModule, parameters: Parameters) -> list[LayerBound]:
    """Computes and checks every bound. Raises CertificateError naming the layer that is over one."""
    largest: dict[relax.Var, int] = {}
    bounds: list[LayerBound] = []
    for call in layer_calls(module):
        if isinstance(call.layer, SUMMING):
            check_distances(call, parameters)
            bounds.append(bound_of(call, largest, parameters))
        largest[call.var] = largest_output(call, largest)
    check(bounds)
    return bounds


def check_distances(call: LayerCall, parameters: Parameters) -> None:
    """Raises CertificateError for an alignment or a requantization whose own constants leave int32.

    It comes before the bound, which such a shift would push out of int64.
    """
    aligned = alignment_shifts(call, parameters)
    if max(aligned) > MAX_ALIGNMENT:
        raise CertificateError(
            f"layer {call.name} ({call.layer.kind}): an operand is aligned by {max(aligned)} bits to the left, only "
            f"{MAX_ALIGNMENT} are possible; choose its shifts anew"
        )
    distances = [shift - call.layer.out_shift for shift in accumulator_shifts(call, parameters)]  # type: ignore[union-attr]
    if min(distances) < -MAX_LEFT_SHIFT or max(distances) > MAX_RIGHT_SHIFT:
        raise CertificateError(
            f"layer {call.name} ({call.layer.kind}): requantizes by {min(distances)} to {max(distances)} bits to the "
            f"right, only -{MAX_LEFT_SHIFT} to {MAX_RIGHT_SHIFT} are exact; choose its shifts anew"
        )


def accumulator_shifts(call: LayerCall, parameters: Parameters) -> list[int]:
    """Shifts of what a layer requantizes: per output channel, per input of a concat, or one."""
    layer = call.layer
    if isinstance(layer, ConvLayer):
        grids = convolution_grids(call, layer, parameters)
        return grids if layer.residual_shift is None else [max(grid, layer.residual_shift) for grid in grids]
    if isinstance(layer, AddLayer):
        return [max(layer.a_shift, layer.b_shift)]
    return list(layer.in_shifts) if isinstance(layer, ConcatLayer) else [layer.sum_shift]  # type: ignore[union-attr]


def convolution_grids(call: LayerCall, layer: ConvLayer, parameters: Parameters) -> list[int]:
    """Shift of a convolution's accumulator per output channel, before a residual meets it."""
    return [int(shift) + layer.in_shift for shift in parameters[call.arguments[3].name]]


def largest_output(call: LayerCall, largest: dict[relax.Var, int]) -> int:
    """max|q| of a layer's output: 127 behind a ReLU, else 128; copies keep their input's."""
    if isinstance(call.layer, Upsample2x):
        return largest[call.arguments[0]]
    return INT8_MAX if isinstance(call.layer, (ConvLayer, AddLayer)) and call.layer.relu else -INT8_MIN


def alignment_shifts(call: LayerCall, parameters: Parameters) -> list[int]:
    """By how many bits the operands of a sum go to the left to meet on the finest grid."""
    layer = call.layer
    if isinstance(layer, AddLayer):
        return [abs(layer.a_shift - layer.b_shift)]
    if isinstance(layer, ConvLayer) and layer.residual_shift is not None:
        return [abs(grid - layer.residual_shift) for grid in convolution_grids(call, layer, parameters)]
    return [0]


def bound_of(call: LayerCall, largest: dict[relax.Var, int], parameters: Parameters) -> LayerBound:
    """The bound of a layer of SUMMING, given the largest inputs."""
    layer, arguments = call.layer, call.arguments
    if isinstance(layer, ConvLayer):
        weight, bias, weight_shift = (parameters[argument.name] for argument in arguments[1:4])
        return conv_bound(
            weight,
            weight_shift,
            bias,
            input_shift=layer.in_shift,
            input_max=largest[arguments[0]],
            residual_shift=layer.residual_shift,
            residual_max=None if layer.residual_shift is None else largest[arguments[4]],
            out_shift=layer.out_shift,
            name=call.name,
        )
    if isinstance(layer, AddLayer):
        a_max, b_max = (largest[argument] for argument in arguments)
        return add_bound(
            layer.a_shift, layer.b_shift, a_max=a_max, b_max=b_max, out_shift=layer.out_shift, name=call.name
        )
    if isinstance(layer, ConcatLayer):
        maximum = max(largest[argument] for argument in arguments)
        return concat_bound(layer.in_shifts, maximum=maximum, out_shift=layer.out_shift, name=call.name)
    assert isinstance(layer, AveragePool)
    return pool_bound(layer.kernel, layer.in_shift, layer.out_shift, input_max=largest[arguments[0]], name=call.name)
