"""Step 3: from step 2's ONNX to an integer-only compiled model."""

import sys

_tvm = sys.modules.get("tvm")
if _tvm is not None and _tvm.get_global_func("relax.BlockBuilderCreate", allow_missing=True) is None:
    raise ImportError(
        "this process has loaded TVM without its compiler, as running a compiled model does (`runtime`): "
        "import `compile` before the first model is loaded, or compile in a process of its own"
    )
