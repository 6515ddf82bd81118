"""
What a stream lacks for one who could not take it: counted as it passes by, told as one record.

The `lost` record stands where the records are missing and has the number of the first of them.
"""

from __future__ import annotations

from pidtrail.events import Event, Lost


class Gap:
    """Records in a row that were not handed over; false as long as there are none."""

    def __init__(self, origin: str, reason: str) -> None:
        self.origin, self.reason = origin, reason
        self.records = 0
        self.count: int | None = 0
        self.seq = self.from_ns = self.to_ns = 0

    def __bool__(self) -> bool:
        """Return whether anything is missing."""
        return self.records > 0

    def add(self, events: list[Event]) -> None:
        """Take in that these, which come next, are missing too; they are not empty."""
        if not self.records:
            self.seq, self.from_ns = events[0].seq, events[0].ts_boot_ns
        self.records += len(events)
        self.to_ns = events[-1].ts_boot_ns
        for event in events:
            count: int | None = 1
            if isinstance(event, Lost):
                # What it is about is missing here as well.
                count = event.count
                self.from_ns = min(self.from_ns, event.from_ns or self.from_ns)
            self.count = None if self.count is None or count is None else self.count + count

    def lost(self) -> Lost:
        """Return the record that tells of it."""
        return Lost(
            self.seq, self.to_ns, self.origin,
            count=self.count, from_ns=self.from_ns, to_ns=self.to_ns, reason=self.reason,
        )  # fmt: skip

    def close(self) -> Lost:
        """Return the record that tells of it, and begin anew."""
        told = self.lost()
        self.records = self.count = 0
        return told
