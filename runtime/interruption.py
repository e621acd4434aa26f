"""Ctrl-C between two pieces of work, never within one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def leave_to_the_parent(*numbers: int) -> None:
    """In a process that another one has begun and ends: these signals, which reach it as well, are not its own."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Within it the first Ctrl-C (or SIGTERM) only sets a flag, read by the function yielded: a piece of work is never
    cut in two. The second one interrupts at once. In the main thread only, as Python has it for signals.
    """
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
