"""Which pixels of a map are looked at where all would take too long, in training as in calibration."""

SAMPLE = 16384  # values


def pixel_grid(values: int, hw: tuple[int, int], count: int) -> tuple[slice, slice]:
    """Rows and columns of maps of `hw` with `values` numbers in all, of which about SAMPLE remain: a grid, another one
    for every `count`, so that no column is looked at alone.
    """
    step = max(1, int((values / SAMPLE) ** 0.5))
    return slice(count * 7 % min(step, hw[0]), None, step), slice(count * 5 % min(step, hw[1]), None, step)
