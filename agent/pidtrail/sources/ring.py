"""
Reading a BPF ring buffer from its memory map.

libbpf's own reader calls back into Python once per record, a third of all our
time in a storm (4.7 against 3.5 µs per event); here a whole batch is one copy.
The layout is kernel/bpf/ringbuf.c: page 0 holds the consumer position, page 1
the producer position, then the data; each record has an 8 byte header (length
with two flag bits, page offset) and is padded to 8 bytes.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import threading
from typing import Final

BUSY: Final = 1 << 31
DISCARD: Final = 1 << 30
HEADER: Final = struct.Struct("=II")
BATCH_BYTES: Final = 256 * 1024
"""Enough to be fast and small enough to keep the agent small in a storm."""


class Ring:
    """
    The consumer side of one BPF_MAP_TYPE_RINGBUF map.

    `fd` is the map's; `size` its max_entries, a power of two. The data is mapped
    once, not twice as libbpf does: each mapping counts as resident memory. A
    batch that wraps is joined instead.
    """

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self.consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.pages = mmap.mmap(fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self.data_at = page
        self.consumer = ctypes.c_ulong.from_buffer(self.consumer_page)
        self.barrier = threading.Lock()

    def read(self) -> tuple[bytes, list[tuple[int, int]]]:
        """
        Take what has been committed, at most one batch.

        Returns the bytes and (offset, length) of each record in them; the space
        is given back to the kernel before it returns.
        """
        start = self.consumer.value
        end = min(int.from_bytes(self.pages[:8], "little"), start + BATCH_BYTES)
        if start == end:
            return b"", []
        stop, records = self.committed(start, end)
        # The headers decide what is committed, so they must be read before the data. x86 keeps
        # that order by itself; elsewhere taking a lock is the barrier that does.
        with self.barrier:
            data = self.copy(start, stop)
        self.consumer.value = stop
        return data, records

    def committed(self, start: int, end: int) -> tuple[int, list[tuple[int, int]]]:
        """Return where the committed records stop, and (offset from start, length) of each."""
        at = start
        mask, base, pages = self.size - 1, self.data_at, self.pages
        records: list[tuple[int, int]] = []
        while at < end:
            word, _ = HEADER.unpack_from(pages, base + (at & mask))
            length = word & ~(BUSY | DISCARD)
            following = at + ((length + 15) & ~7)
            if word & BUSY or (following > end and records):
                break
            if not word & DISCARD:
                records.append((at + 8 - start, length))
            at = following
        return at, records

    def copy(self, start: int, stop: int) -> bytes:
        """Return the bytes between two positions as one piece."""
        first, length = start & (self.size - 1), stop - start
        tail = self.size - first
        base = self.data_at
        if length <= tail:
            return self.pages[base + first : base + first + length]
        return self.pages[base + first : base + self.size] + self.pages[base : base + length - tail]

    def close(self) -> None:
        """Unmap."""
        del self.consumer
        self.consumer_page.close()
        self.pages.close()
