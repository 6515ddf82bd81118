"""JSON lines for one who reads them while they are captured, and who is never waited for."""

from __future__ import annotations

from typing import Final

from pidtrail import codec
from pidtrail.events import Event, Header
from pidtrail.gap import Gap
from pidtrail.sinks.outlet import Outlet

MOST_BYTES: Final = 16 << 20
"""Held for one who is slow, some 50,000 records."""
HEADER_SECONDS: Final = 0.5
"""A descriptor to which nothing can be written shows that at the first line, and at once."""
ORIGIN: Final = "stdout"


class Feed:
    """
    Writes a stream to a descriptor, as JsonLines does, at the pace of who reads it.

    When so much is held that it is full, what comes is missed until all that is held was
    read; a `lost` record then stands in its place, in this stream alone. `missed` counts
    records in all. Errors are told by `check` alone, and nothing waits but, for a moment,
    the making, for the header.
    """

    def __init__(self, fd: int, header: Header, most_bytes: int = MOST_BYTES) -> None:
        self.wall_offset_ns = header.wall_offset_ns
        self.most_bytes = most_bytes
        self.gap = Gap(ORIGIN, "the reader of stdout was too slow")
        self.missed = 0
        self.outlet = Outlet(fd, self.told_gap)
        self.outlet.put(codec.encode_header(header))
        self.outlet.drained(HEADER_SECONDS)

    def write(self, events: list[Event]) -> None:
        """Have a batch written, or count it as missed."""
        if not events:
            return
        outlet, offset = self.outlet, self.wall_offset_ns
        if self.gap or outlet.held >= self.most_bytes:
            with outlet.changed:
                self.gap.add(events)
                self.missed += len(events)
                outlet.changed.notify_all()
            return
        outlet.put(b"".join([codec.encode_line(event, offset) for event in events]))

    def check(self) -> None:
        """Raise the OSError for which nothing more can be written, if there is one."""
        if self.outlet.error is not None:
            raise self.outlet.error

    def told_gap(self) -> bytes:
        """Return the line for what was missed, if anything was, once all before it was read."""
        return codec.encode_line(self.gap.close(), self.wall_offset_ns) if self.gap else b""

    def close(self) -> None:
        """Take no more; who reads may go on."""
        self.outlet.end()
