"""Work in several threads: order, errors and interruptions as if it were done one after the other."""

import threading
import time
from collections.abc import Iterator

import pytest

from runtime.stream import in_order


def hundred(taken: list[int]) -> Iterator[int]:
    """Numbers, noted in `taken` as they are asked for."""
    for number in range(100):
        taken.append(number)
        yield number


def test_results_come_in_the_order_of_the_items_and_several_are_worked_on_at_once() -> None:
    both = threading.Barrier(2, timeout=20)

    def work(number: int) -> int:
        both.wait()  # passes only if two are here at a time
        time.sleep(0.01 * (number % 2))
        return number * number

    assert list(in_order(work, range(8), workers=2)) == [number * number for number in range(8)]


def test_no_more_is_taken_from_the_items_than_a_few_ahead() -> None:
    taken: list[int] = []

    results = in_order(lambda number: number, hundred(taken), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 10


def test_an_error_comes_in_its_turn() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise OSError("disk full")
        return number

    results = in_order(work, range(9), workers=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="disk full"):
        next(results)


def test_an_error_of_the_items_comes_after_what_was_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("cut short")

    results = in_order(lambda number: number, items(), workers=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="cut short"):
        next(results)


def test_what_was_taken_before_a_stop_is_finished() -> None:
    taken: list[int] = []

    stop = threading.Event()
    results = in_order(lambda number: number, hundred(taken), 2, stop.is_set)
    begun = [next(results), next(results)]
    stop.set()
    assert begun + list(results) == taken
    assert len(taken) < 10
