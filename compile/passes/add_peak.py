"""AddPeak: the function `peak` beside `main`, by which `runtime.bench` learns what the processor can do at most.

    Before   main(picture, ...)
    After    main(picture, ...), peak() -> (int32 sums,): only dot products, all in registers

Requires nothing. Ensures that `main` is as it was.
"""

import numpy as np
import tvm
from tvm import relax

from compile.kernels.instructions import STEP, Instructions
from compile.kernels.peak import SUMS, PeakKernel
from compile.rewrite import main_function, typed_global


@tvm.transform.module_pass(opt_level=0, name="AddPeak")
class AddPeak:
    """See the module's text."""

    def __init__(self, cpu: Instructions) -> None:
        self.cpu = cpu

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        kernel = PeakKernel().build(self.cpu)
        var = typed_global("peak_kernel", kernel)
        arguments = [relax.const(np.ones(1, np.int32)), relax.const(np.ones(STEP * self.cpu.lanes, np.int8))]
        out_type = relax.TensorType((SUMS * self.cpu.lanes,), "int32")
        result = relax.DataflowVar("sums", out_type)
        function = main_function([], [(result, relax.call_tir(var, arguments, out_ty=out_type))], [result], {})
        functions = dict(module.functions.items()) | {var: kernel}
        functions[relax.GlobalVar("peak")] = function.with_attr("global_symbol", "peak")
        return tvm.IRModule(functions, attrs=module.attrs)
