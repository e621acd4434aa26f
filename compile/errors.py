"""The one exception of the compiler: what is wrong, in which file or layer, and the cure."""


class CompileError(Exception):
    """A model, file or setting that the compiler refuses; the message names it and says what to do."""
