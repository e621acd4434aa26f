"""Work in several threads: order, errors and interruptions as if it were done one after the other."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from runtime.stream import in_order


def test_results_come_in_the_order_of_the_items_and_several_are_worked_on_at_once() -> None:
    both = threading.Barrier(2, timeout=20)

    def work(number: int) -> int:
        both.wait()  # passes only if two are here at a time
        time.sleep(0.01 * (number % 2))
        return number * number

    assert list(in_order(work, range(8), workers=2)) == [number * number for number in range(8)]


def test_no_more_is_taken_from_the_items_than_a_few_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), workers=2)
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


def test_an_interruption_keeps_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Barrier(3, timeout=20)

    def work(number: int) -> int:
        if number < 2:
            begun.wait()
        time.sleep(0.2)
        return number

    original, waits = Future.result, 0

    def result(future: Future[int], timeout: float | None = None) -> int:
        nonlocal waits
        waits += 1
        if waits == 1:  # while the first result is waited for, with two items in work
            begun.wait()
            raise KeyboardInterrupt
        return original(future, timeout)

    monkeypatch.setattr(Future, "result", result)
    results = in_order(work, range(50), workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        next(results)
