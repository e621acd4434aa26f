"""Work on a stream of items in several threads, with the results in the items' order.

Decoders, OpenCV and kernels let other threads run meanwhile, so that threads are enough to keep all processors busy.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # items to a worker that are taken before the first result is asked for


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Result]:
    """work(item) of every item, `workers` at a time. What `work` raises is raised in its turn, and so is what `items`
    raises: after the results of all that came before.

    Once `stopped`, no more items are taken; the results of those that were still come.
    """
    source, failures = iter(items), list[Exception]()
    under_way: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:

        def take(count: int) -> None:
            try:
                while count and not failures and not stopped():
                    under_way.extend(pool.submit(work, item) for item in islice(source, 1))
                    count -= 1
            except Exception as error:
                failures.append(error)

        try:
            take(AHEAD * workers)
            while under_way:
                yield under_way.popleft().result()
                take(1)
        finally:
            for future in under_way:
                future.cancel()
    if failures:
        raise failures[0]
