"""Prefetch: batches made ahead of time by a thread, in order, where there is time to make them in."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

#: A thread takes over once whoever asks needed at least this share of the time in which a batch is made, this often in a row:
#: before, there is nothing to overlap, and handing batches from thread to thread costs more than it saves.
SHARE, TIMES = 0.1, 3


def ahead(make: Callable[[int], T], steps: Iterator[int], depth: int) -> Iterator[T]:
    """`make(step)` for every step, in order, made by one thread that is up to `depth` steps ahead once that is of use.

    What `make` raises is raised when its turn comes. The thread ends when the iterator is let go.
    """
    began, busy = time.perf_counter(), 0
    for step in steps:
        made = make(step)
        done = time.perf_counter()
        yield made
        del made  # memory of a batch that was let go is used again
        asked = time.perf_counter()
        busy = busy + 1 if asked - done > SHARE * (done - began) else 0
        if busy == TIMES:
            break
        began = asked
    yield from _by_thread(make, steps, depth)


def _by_thread(make: Callable[[int], T], steps: Iterator[int], depth: int) -> Iterator[T]:
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
