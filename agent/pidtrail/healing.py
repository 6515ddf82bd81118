"""
Healing after a loss: find out what became of those of whom we may have missed the end.

A loss may have held any record. A fork that was missed is found by looking at
what is traced now; an end that was missed by who is not there any more. Who was
alive as far as we knew, is not in a snapshot, and whose exit has not come by the
turn after it either, is gone: nobody stays alive for ever. The looks are bounded:
two per loss, a second apart, however many records were lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from pidtrail.events import Event, Observed, ProcessKey

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST_LOOK_NS: Final = 200_000_000
LOOK_AGAIN_NS: Final = 1_000_000_000
LOOKS: Final = 2


class Healing:
    """When to look again after a loss, and whom that look leaves in doubt. No clock, no I/O."""

    def __init__(self) -> None:
        self.looks_left = 0
        self.next_look_ns = 0
        self.in_doubt: frozenset[ProcessKey] = frozenset()

    def on_loss(self, now_ns: int) -> None:
        """Plan the looks; a loss during a plan begins it anew, not sooner than planned."""
        if self.looks_left == 0:
            self.next_look_ns = now_ns + FIRST_LOOK_NS
        self.looks_left = LOOKS

    def is_due(self, now_ns: int) -> bool:
        """Return whether to take a snapshot now."""
        return self.looks_left > 0 and now_ns >= self.next_look_ns

    def compare(self, live: Iterable[ProcessKey], snapshot: Iterable[Event], now_ns: int) -> None:
        """Note who should be alive and is not in a snapshot."""
        there = {event.key for event in snapshot if not getattr(event, "dead", False)}
        self.in_doubt = frozenset(key for key in live if key not in there)
        self.looks_left -= 1
        self.next_look_ns = now_ns + LOOK_AGAIN_NS

    def gone(self, live: set[ProcessKey], origin: str, now_ns: int) -> list[Event]:
        """
        Return a record for each that is still in doubt, to be asked a turn after `compare`.

        It says that the process was found dead, not how it ended; `seq` is left
        to the caller.
        """
        found = [key for key in self.in_doubt if key in live]
        self.in_doubt = frozenset()
        return [
            Observed(
                0,
                now_ns,
                origin,
                key.pid,
                key.start_ticks,
                dead=True,
                born_ns=UNSET if key.born_ns is None else key.born_ns,
            )
            for key in sorted(found, key=lambda key: key.pid)
        ]
