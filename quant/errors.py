"""The exception of this room."""


class QuantError(ValueError):
    """A shift, range or tensor the integer arithmetic has no answer for; the message says which and what to do."""
