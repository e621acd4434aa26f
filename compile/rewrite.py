"""Re-emission of a Relax function: what every pass that walks `main` binding by binding needs."""

from collections.abc import Mapping

from tvm import relax


def substitute(expr: relax.Expr, replacement: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    """The expression with its variables replaced. Bindings here are in normal form, so calls, tuples and their items are all there is."""
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
