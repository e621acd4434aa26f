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


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """work(item) of every item, `workers` at a time. What `work` raises is raised in its turn.

    After a KeyboardInterrupt the results of items that are being worked on still come, and then it is raised.
    """
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, AHEAD * workers))
        try:
            while under_way:
                yield under_way[0].result()
                under_way.popleft()
                under_way.extend(pool.submit(work, item) for item in islice(source, 1))
        except KeyboardInterrupt:
            begun = [future for future in under_way if not future.cancel()]
            for future in begun:
                yield future.result()
            raise
        finally:
            for future in under_way:
                future.cancel()
