"""The one exception of this room."""


class DataError(Exception):
    """Data that cannot be read or made; the message names the file and the cure."""
