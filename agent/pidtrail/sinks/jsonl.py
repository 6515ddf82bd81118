"""JSON lines: the header first, then one event per line with its wall time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from pidtrail import codec
from pidtrail.events import Event, Header


class JsonLines:
    """
    Writes a stream to a binary file that the caller opened and closes.

    The header goes out at once. BrokenPipeError and other OSErrors are the
    caller's: for it they mean that nobody listens any more.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.file = file
        self.wall_offset_ns = header.wall_offset_ns
        self.file.write(codec.encode_header(header))
        self.file.flush()

    def write(self, events: Iterable[Event]) -> None:
        """Write a batch, and hand it to the operating system before returning."""
        offset = self.wall_offset_ns
        self.file.writelines(codec.encode_line(event, offset) for event in events)
        self.file.flush()

    def close(self) -> None:
        """Hand over what is left; the file stays open."""
        self.file.flush()
