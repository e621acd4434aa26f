"""The room's exceptions: each message names the file, key or layer, and the cure; CLIs print it without a traceback."""


class TrainError(Exception):
    """Base of everything that `train` reports to its user."""


class CheckpointError(TrainError):
    """A checkpoint is missing, damaged, truncated, or belongs to something else."""


class ExportError(TrainError):
    """The exported ONNX does not return the bits that torch returns, or cannot be made."""


class EvaluationError(TrainError):
    """A model cannot be evaluated on the data it was given."""
