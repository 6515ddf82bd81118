"""What was recorded, read again: a recording, a JSONL file, or `-` for JSONL on stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pidtrail import codec
from pidtrail.errors import RecordingError
from pidtrail.store import Recording, is_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidtrail.events import Event, Header


class Replay:
    """
    An earlier stream: its header, and its events in order.

    `problem` says after reading why the end is missing, if it is: a damaged
    recording still tells all up to the damage. Raises RecordingError if it
    cannot be read at all.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem: str | None = None
        self.recording: Recording | None = None
        if name == "-":
            self.open_lines(sys.stdin.buffer)
            return
        path = Path(name)
        if not path.exists():
            raise RecordingError(f"{name}: no such file")
        if path.is_dir():
            raise RecordingError(f"{name} is a directory")
        # Looking into a pipe takes away what is looked at, and SQLite reads files only.
        if path.is_file() and is_sqlite(path):
            self.recording = Recording(path)
            self.header: Header = self.recording.header
            return
        try:
            self.open_lines(path.open("rb"))
        except OSError as error:
            raise RecordingError(f"{name}: {error.strerror}") from error

    def open_lines(self, file: BinaryIO) -> None:
        """Read the header of a JSONL stream."""
        self.file = file
        first = file.readline()
        try:
            self.header = codec.decode_header(first)
        except RecordingError as error:
            self.close()
            why = error if first else "there is nothing in it"
            raise RecordingError(f"{self.name}: {why}") from error

    def events(self) -> Iterator[Event]:
        """Yield the events; stops at the first damage and says so in `problem`."""
        try:
            yield from self.recording.events() if self.recording else self.lines()
        except RecordingError as error:
            self.problem = str(error)
        finally:
            self.close()

    def parts(self) -> Iterator[tuple[int, list[Event]]]:
        """
        Yield the events of a recording batch by batch, each with its name for `part`.

        As `events`, but it stays open.
        """
        try:
            yield from self.recording.parts() if self.recording else ()
        except RecordingError as error:
            self.problem = str(error)

    def part(self, name: int) -> list[Event]:
        """Return a batch of a recording once more. Raises RecordingError."""
        return self.recording.part(name) if self.recording else []

    def lines(self) -> Iterator[Event]:
        """Yield the events of a JSONL stream."""
        for number, line in enumerate(self.file, start=2):
            if not line.strip():
                continue
            try:
                yield codec.decode(line)
            except RecordingError as error:
                raise RecordingError(f"{self.name}, line {number}: {error}") from error

    def close(self) -> None:
        """Close what was opened; reading the events to their end does it too."""
        if self.recording is not None:
            self.recording.close()
        elif self.name != "-":
            self.file.close()
