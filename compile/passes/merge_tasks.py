"""MergeTasks: what several tasks compute alike is computed once.

    Before   backbone(image) for task a, backbone(image) again for task b, ...      same parameters, same inputs
    After    backbone(image) once, read by all tasks

Parameters are shared by name, so two calls of one operator on the same variables with the same settings are one value.
Requires: pure operators. Ensures: no convolution is left twice with the same weight, input and settings (raises naming
its result otherwise).
"""

import tvm
from tvm import relax

from compile.errors import CompileError
from compile.rewrite import bindings_of, operator_name


@tvm.transform.module_pass(opt_level=0, name="MergeTasks")
class MergeTasks:
    """See the module's text."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        merged = relax.transform.EliminateCommonSubexpr()(module)
        merged = relax.transform.DeadCodeElimination()(merged)
        seen: set[tuple[relax.Expr, relax.Expr, str]] = set()
        for binding in bindings_of(merged["main"]):
            if operator_name(binding.value) == "relax.nn.conv2d":
                key = (binding.value.args[0], binding.value.args[1], str(binding.value.attrs))
                if key in seen:
                    raise CompileError(
                        f"{binding.var.name}: a convolution is computed twice on the same input; report this model"
                    )
                seen.add(key)
        return merged
