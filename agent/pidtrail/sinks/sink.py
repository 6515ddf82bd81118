"""What every sink is: something that takes batches of records in order."""

from __future__ import annotations

from typing import Protocol

from pidtrail.events import Event


class Sink(Protocol):
    """A destination. A sink never stalls capture and never loses in silence."""

    def write(self, events: list[Event]) -> None:
        """Take a batch."""

    def close(self) -> None:
        """Finish what was taken."""
