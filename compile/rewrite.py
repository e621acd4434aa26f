"""Re-emission of a Relax function: what every pass that walks `main` binding by binding needs."""

from collections.abc import Mapping

import tvm
from tvm import relax

NEAREST_FLOOR = ("nearest_neighbor", "asymmetric", "floor")  # the `resize_rule` that copies pixels


def substitute(expr: relax.Expr, replacement: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    """The expression with its variables replaced.

    Bindings here are in normal form, so calls, tuples and their items are all there is.
    """
    if isinstance(expr, relax.Var):
        return replacement.get(expr, expr)
    if isinstance(expr, relax.Call):
        arguments = [substitute(argument, replacement) for argument in expr.args]
        return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([substitute(field, replacement) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(expr.tuple_value, replacement), expr.index)
    return expr


def operator_name(expr: relax.Expr) -> str:
    """`relax.nn.conv2d` and the like for a call of an operator, else the empty string."""
    if isinstance(expr, relax.Call) and hasattr(expr.op, "name"):
        return str(expr.op.name)
    return ""


def bindings_of(function: relax.Function) -> list[relax.VarBinding]:
    """The bindings of a function that is one dataflow block, as the importer and the passes leave it."""
    (block,) = function.body.blocks
    return list(block.bindings)


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """The static shape of a tensor."""
    return tuple(int(size) for size in expr.ty.shape)


def constant_tuple(expr: relax.Expr) -> list[int]:
    """The values of a tuple of literals."""
    return [int(field.value) for field in expr.fields]


def resize_rule(call: relax.Call) -> tuple[str, str, str]:
    """Method, coordinate transformation and rounding of a call of image.resize2d."""
    attributes = call.attrs
    return (
        str(attributes.method),
        str(attributes.coordinate_transformation_mode),
        str(attributes.rounding_method),
    )


def main_function(
    parameters: list[relax.Var],
    bindings: list[tuple[relax.Var, relax.Expr]],
    outputs: list[relax.Expr],
    attributes: Mapping[str, object],
) -> relax.Function:
    """`main`: one dataflow block of the bindings, returning the tuple of outputs.

    Names of variables stay as they are, dots included, which BlockBuilder would not keep.
    """
    for var, value in bindings:
        if type(value.ty) is tvm.ir.Type:  # a call made anew has no type, and well-formed IR needs it
            relax.expr._update_type(value, var.ty)
    result = relax.Var("outputs", relax.TupleType([output.ty for output in outputs]))
    returned = relax.VarBinding(result, relax.Tuple(outputs))
    block = relax.DataflowBlock([*(relax.VarBinding(*binding) for binding in bindings), returned])
    body = relax.SeqExpr([block], result)
    relax.expr._update_type(body, result.ty)
    function = relax.Function(parameters, body, result.ty)
    return function.with_attrs({"global_symbol": "main", **attributes})


def typed_global(name: str, function: relax.Function) -> relax.GlobalVar:
    """The name under which a module holds a function, with the function's type, which a call needs."""
    var = relax.GlobalVar(name)
    relax.expr._update_type(var, function.ty)
    return var
