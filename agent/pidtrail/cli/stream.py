"""Reading the FILE that a command was given, damage and all."""

from __future__ import annotations

from collections.abc import Iterator

from pidtrail.cli.logs import log
from pidtrail.errors import PidtrailError
from pidtrail.events import Event, Header
from pidtrail.sources.replay import Replay


class Stream:
    """
    The events of FILE, and what went wrong with them.

    `problems` is filled while `events` is read to its end: damage is said once
    on stderr, and what stands before it is good. `last_ns` is CLOCK_BOOTTIME of
    the latest event read. Raises PidtrailError if nothing can be read at all.
    """

    def __init__(self, file: str | None) -> None:
        if file is None:
            raise PidtrailError(
                "no service runs here to ask", "name a recording, a JSONL file, or `-` for stdin"
            )
        self.replay = Replay(file)
        self.header: Header = self.replay.header
        self.problems: list[str] = []
        self.last_ns = 0

    def events(self) -> Iterator[Event]:
        """Yield the events; to be called once."""
        for event in self.replay.events():
            self.last_ns = max(self.last_ns, event.ts_boot_ns)
            yield event
        if self.replay.problem is not None:
            self.problems.append(self.replay.problem)
            log.warning(self.replay.problem)
