"""The one exception of the compiler: what is wrong, in which file or layer, and the cure."""

from tvm_ffi import register_error


@register_error("CompileError")  # so that it keeps its type on the way through TVM's pass infrastructure
class CompileError(Exception):
    """A model, file or setting that the compiler refuses; the message names it and says what to do."""
