"""What a float model's tensors are like on calibration pictures: shifts, ranges and means follow from it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.witness import float_image, float_kernels, open_session
from quant.arith import INT8_MAX, INT8_MIN
from quant.params import ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN
from quant.sampling import pixel_grid

# the finest first: of shifts with equal errors (a tensor that is 0 in all pictures) argmin takes that one
SHIFTS = np.arange(ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN - 1, -1)
Picture = NDArray[np.uint8]
Run = Callable[[Picture], dict[str, NDArray[np.float32]]]


@dataclass
class TensorStatistics:
    """Of one tensor (1, C, H, W) over pictures: squared errors of its rounding by shift of SHIFTS, and by channel the
    largest absolute value and the sum of the means.
    """

    errors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SHIFTS)))
    peaks: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    count: int = 0

    def add(self, value: NDArray[np.float32]) -> None:
        """One picture's tensor."""
        self.errors = self.errors + squared_errors(value, self.count)
        self.peaks = np.maximum(self.peaks, np.abs(value).max(axis=(0, 2, 3)))
        self.sums = self.sums + value.mean(axis=(0, 2, 3), dtype=np.float64)
        self.count += 1

    @property
    def means(self) -> NDArray[np.float64]:
        """By channel."""
        return self.sums / self.count


def statistics_of(run: Run, names: Sequence[str], pictures: Iterable[Picture]) -> dict[str, TensorStatistics]:
    """Statistics by tensor. CompileError naming one that is not finite."""
    statistics = {name: TensorStatistics() for name in names}
    for picture in pictures:
        values = run(picture)
        for name, entry in statistics.items():
            entry.add(values[name])
            if not np.isfinite(entry.errors).all():
                raise CompileError(f"{name}: not finite on the calibration pictures; train the step again")
    return statistics


def best_shifts(statistics: Mapping[str, TensorStatistics], groups: Mapping[str, str]) -> dict[str, int]:
    """The shift of the least squared error for every tensor; those that `groups` puts together share theirs."""
    errors: dict[str, NDArray[np.float64]] = {}
    for name, entry in statistics.items():
        group = groups.get(name, name)
        errors[group] = errors.get(group, 0.0) + entry.errors
    return {name: int(SHIFTS[np.argmin(errors[groups.get(name, name)])]) for name in statistics}


def squared_errors(value: NDArray[np.float32], number: int = 0) -> NDArray[np.float64]:
    """Squared error of the int8 rounding of (1, C, H, W), the picture of that number, for every shift of SHIFTS, on a
    grid of pixels.
    """
    rows, columns = pixel_grid(value.size, (value.shape[2], value.shape[3]), number)
    sample = value[:, :, rows, columns].reshape(-1).astype(np.float64)
    scaled = np.ldexp(sample, SHIFTS[:, None])
    rounded = np.ldexp(np.clip(np.rint(scaled), INT8_MIN, INT8_MAX), -SHIFTS[:, None])
    return np.square(rounded - sample).sum(axis=1)


def runner(model: onnx.ModelProto, names: Sequence[str], where: str) -> Run:
    """Runs a model in ONNX Runtime, without its fused int8 kernels, and returns these of its tensors by name."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    present = {output.name for output in model.graph.output}
    extended.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present
    )
    session = open_session(extended, float_kernels(), where=where)

    def run(picture: Picture) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(list(names), {"image": float_image(picture)}), strict=True))

    return run
