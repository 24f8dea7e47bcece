"""Prefetch: batches made ahead of time by a thread, in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[int], T], steps: Iterator[int], depth: int) -> Iterator[T]:
    """`make(step)` for every step, in order, made by one thread that is up to `depth` steps ahead.

    What `make` raises is raised when its turn comes. The thread ends when the iterator is let go.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="retrodict-windows")
    under_way: deque[Future[T]] = deque()
    try:
        for step in itertools.islice(steps, depth):
            under_way.append(thread.submit(make, step))
        while under_way:
            made = under_way.popleft().result()
            for step in itertools.islice(steps, 1):
                under_way.append(thread.submit(make, step))
            yield made
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
