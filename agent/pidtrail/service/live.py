"""What happens now, for those who want to watch: a sink that never waits for them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from pidtrail.events import Event, Header
from pidtrail.gap import Gap

MOST_EVENTS: Final = 20_000
"""Held for one who is slow, some 10 MB; what comes when they are full he misses."""
TAKE_SECONDS: Final = 0.5
ORIGIN: Final = "service"


class Subscription:
    """
    The records on their way to one reader.

    `put` is the capture's and never blocks; `take` is the reader's.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self.most = most
        self.changed = threading.Condition()
        self.batches: deque[list[Event]] = deque()
        self.held = 0
        self.missed = Gap(ORIGIN, "the reader was too slow")
        self.ended = False

    def put(self, events: list[Event]) -> None:
        """Take a batch, or count it as missed if too much is held."""
        with self.changed:
            if self.held + len(events) > self.most and self.held:
                self.missed.add(events)
            else:
                if self.missed:
                    events = [self.missed.close(), *events]
                self.batches.append(events)
                self.held += len(events)
            self.changed.notify()

    def take(self) -> list[Event] | None:
        """Return the next batch; an empty one if none comes for a while, None at the end."""
        with self.changed:
            if not self.batches and not self.ended:
                self.changed.wait(TAKE_SECONDS)
            if self.batches:
                events = self.batches.popleft()
                self.held -= len(events)
                return events
            if self.missed:
                return [self.missed.close()]
            return None if self.ended else []

    def end(self) -> None:
        """Let the reader have what is held, and no more."""
        with self.changed:
            self.ended = True
            self.changed.notify()


class Live:
    """
    The sink behind `live` requests. `header` is that of the records that come now.

    Who begins to read must learn who lives: `wants_snapshot` asks the capture for a
    look at that, which comes as records like all others.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self.guard = threading.Lock()
        self.readers: list[Subscription] = []
        self.asked = False
        self.ended = False

    def write(self, events: list[Event]) -> None:
        """Take a batch."""
        if not self.readers or not events:
            return
        with self.guard:
            for reader in self.readers:
                reader.put(events)

    def wants_snapshot(self) -> bool:
        """Return once for new readers that they must be told who lives."""
        asked, self.asked = self.asked, False
        return asked

    def close(self) -> None:
        """End all readers."""
        with self.guard:
            self.ended = True
            for reader in self.readers:
                reader.end()

    @contextlib.contextmanager
    def subscription(self) -> Iterator[Subscription]:
        """Give a reader all records from now on."""
        reader = Subscription()
        with self.guard:
            if self.ended:
                reader.end()
            self.readers.append(reader)
            self.asked = True
        try:
            yield reader
        finally:
            with self.guard:
                self.readers.remove(reader)
