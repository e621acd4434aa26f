"""JoinPostProcessing: the detection tasks' post-processing becomes one call, in which threads share the tasks.

    Before   both_a = call_tir(detection_post_processing_a, (scores_a, ...)), boxes_a = both_a[0], packed_a = both_a[1]
             both_b = call_tir(detection_post_processing_b, (scores_b, ...)), ...
    After    all = call_tir(detection_post_processing, (scores_a, ..., scores_b, ...))
             boxes_a = all[0], packed_a = all[1], boxes_b = all[2], ...

Requires: nothing reads the results but items of their tuples. Ensures: as many results as before, at most one call; the
tasks' own functions, which stay as they are in the integer module, are parts of its function.
"""

from collections.abc import Sequence

import tvm
from tvm import relax, s_tir, tirx

from compile.errors import CompileError
from compile.graph import arguments_of
from compile.ops.detection import OPERATOR
from compile.rewrite import bindings_of, main_function, typed_global

NAME = "detection_post_processing"
Binding = tuple[relax.Var, relax.Expr]


@tvm.transform.module_pass(opt_level=0, name="JoinPostProcessing")
class JoinPostProcessing:
    """See the module's text."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        main = module["main"]
        *bindings, last = bindings_of(main)
        calls = {entry.var: entry.value for entry in bindings if is_detection(module, entry.value)}
        if len(calls) < 2:
            return module
        functions = [module[call.args[0]] for call in calls.values()]
        function = joined(functions)
        var = typed_global(NAME, function)
        arguments = [argument for call in calls.values() for argument in call.args[1].fields]
        types = [field for result in calls for field in result.ty.fields]
        together = relax.DataflowVar(NAME, relax.TupleType(types))
        after = rebound(
            [(entry.var, entry.value) for entry in bindings],
            calls=list(calls),
            together=(together, relax.call_tir(var, arguments, out_ty=types)),
        )
        parts = {call.args[0] for call in calls.values()}
        others = {key: value for key, value in module.functions.items() if key not in parts and key.name_hint != "main"}
        rewritten = main_function(list(main.params), after, list(last.value.fields), dict(main.attrs))
        return tvm.IRModule({relax.GlobalVar("main"): rewritten, **others, var: function}, attrs=module.attrs)


def is_detection(module: tvm.IRModule, value: relax.Expr) -> bool:
    """Whether a binding calls a function of a detection task."""
    if not isinstance(value, relax.Call) or not value.args or not isinstance(value.args[0], relax.GlobalVar):
        return False
    function = module[value.args[0]]
    return isinstance(function, tirx.PrimFunc) and str((function.attrs or {}).get("op", "")) == OPERATOR


def rebound(bindings: Sequence[Binding], *, calls: Sequence[relax.Var], together: Binding) -> list[Binding]:
    """The bindings with the call of all in the place of the last one, and its items behind it."""
    first_item, start = {}, 0
    for result in calls:
        first_item[result], start = start, start + len(result.ty.fields)
    before: list[Binding] = []
    after: list[Binding] = []
    for var, value in bindings:
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in first_item:
            item = first_item[value.tuple_value] + int(value.index)
            after.append((var, relax.TupleGetItem(together[0], item)))
        elif first_item.keys() & set(arguments_of(value)):
            raise CompileError(f"{var.name}: reads a detection's results together; report this model")
        elif var not in first_item:
            before.append((var, value))
    return [*before, together, *after]


def joined(functions: Sequence[tirx.PrimFunc]) -> tirx.PrimFunc:
    """One function of all their inputs, then all their outputs, which runs one of them in each iteration of a loop."""
    outputs = 2  # of each
    inputs = [parameter for function in functions for parameter in function.params[:-outputs]]
    results = [parameter for function in functions for parameter in function.params[-outputs:]]
    number = tirx.Var("task", "int32")
    body: tirx.Stmt | None = None
    for index in reversed(range(len(functions))):
        body = functions[index].body if body is None else tirx.IfThenElse(number == index, functions[index].body, body)
    loop = tirx.For(number, tirx.const(0, "int32"), tirx.const(len(functions), "int32"), tirx.ForKind.PARALLEL, body)
    root = s_tir.SBlockRealize([], True, s_tir.SBlock([], [], [], "root", loop))
    return tirx.PrimFunc([*inputs, *results], root, attrs=functions[0].attrs)
