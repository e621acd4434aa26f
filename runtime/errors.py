"""The room's exceptions: every message names the file, what is wrong with it, and the cure."""


class RuntimeRoomError(Exception):
    """Base of everything that `runtime` reports to its user; the CLIs print it without a traceback."""


class ArtifactError(RuntimeRoomError):
    """A compiled model or its manifest cannot be used: missing, damaged, of another version, not fitting each other."""


class ImageError(RuntimeRoomError):
    """One picture cannot be read or processed. The other pictures of a run are not concerned."""


class VideoError(RuntimeRoomError):
    """A video cannot be read or written."""


class UsageError(RuntimeRoomError):
    """What was asked for does not exist or makes no sense: a task the model does not have, a threshold above 1."""
