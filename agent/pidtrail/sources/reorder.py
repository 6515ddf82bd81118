"""
Records of several CPUs in the order of time.

A perf buffer is one ring per CPU, read one after the other; 1.2 to 1.8 % of
neighbours came out of order in a storm. A record is held until everything that
could be older has been read: what was written before a look began is in the
buffers by then, but for the programs that were just about to write.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

WINDOW_NS: Final = 20_000_000
T = TypeVar("T")


class Reorder(Generic[T]):
    """A window that records pass in the order of their times; equal ones as they came."""

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        self.window_ns = window_ns
        self.heap: list[tuple[int, int, T]] = []
        self.count = 0

    def push(self, ts_ns: int, record: T) -> None:
        """Take in a record."""
        self.count += 1
        heappush(self.heap, (ts_ns, self.count, record))

    def pop(self, looked_ns: int) -> list[T]:
        """Return what is older than the window, oldest first; `looked_ns`: when the look began."""
        ripe = []
        while self.heap and self.heap[0][0] <= looked_ns - self.window_ns:
            ripe.append(heappop(self.heap)[2])
        return ripe
