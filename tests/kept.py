"""A sink for tests."""

from __future__ import annotations

from pidtrail.events import Event


class Kept:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, events: list[Event]) -> None:
        """Keep a batch."""
        self.events += events

    def close(self) -> None:
        """Nothing to do."""
