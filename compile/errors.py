"""The one exception of the compiler: what is wrong, in which file or layer, and the cure."""

from tvm_ffi import register_error

from quant.errors import QuantError

# Both keep their types on the way through TVM's pass infrastructure.
register_error("QuantError", QuantError)


@register_error("CompileError")
class CompileError(Exception):
    """A model, file or setting that the compiler refuses; the message names it and says what to do."""
