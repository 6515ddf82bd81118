"""
What every source is: a thing that opens on some roots and yields records.

A source attaches first, then takes its snapshot, then is drained, so that
nothing falls between the two; what is seen twice has the same key and changes
nothing in the tree. `read` never blocks. A source that cannot open raises
SourceUnavailable and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pidtrail.events import Event, Fidelity


class Source(Protocol):
    """A producer of records about the subtrees of some root processes."""

    name: str
    fidelity: Fidelity
    seq: int

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """
        Attach, and follow the processes `roots` (tgids) and all they fork from now on.

        With `migrations`, every move of a traced thread between CPUs is a
        record too. Raises SourceUnavailable.
        """

    def follow(self, roots: Sequence[int]) -> None:
        """
        Follow these processes as well, and all they forked and fork, without a new start.

        To be asked when open. They are in the next snapshot; of what they do from now on
        nothing is missed. One that is gone by now is passed over. Raises SourceUnavailable.
        """

    def snapshot(self) -> list[Event]:
        """Return one `observed` record per process that is in the subtrees now."""

    def read(self) -> list[Event]:
        """
        Return the records since the last call, oldest first; empty if there are none.

        Raises SourceUnavailable if the source has ceased to work.
        """

    def last(self) -> list[Event]:
        """
        Return what was still held back, to be asked once, after the last `read`.

        What is told only when it is certain that the kernel will not tell it. Raises
        SourceUnavailable.
        """

    def next_seq(self) -> int:
        """Take the next number of the stream, for a record that comes from elsewhere."""

    def close(self) -> None:
        """Detach. May be called twice."""
