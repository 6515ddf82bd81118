"""
Reading a growing table by its ids, once each, although ids are not committed in order.

A sequence of PostgreSQL gives an id when a row is inserted; the row is seen when
its transaction commits, perhaps after rows with higher ids. So ids that were
jumped over are asked for again for a while.
"""

from __future__ import annotations

from collections.abc import Iterable

_PATIENCE_NS = 120 * 1_000_000_000
_MOST_HOLES = 500


class Watermark:
    """The highest id seen, and the younger ones below it that were not."""

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self._holes: dict[int, int] = {}

    @property
    def holes(self) -> list[int]:
        """The ids to ask for besides those above `highest`."""
        return list(self._holes)

    def advance(self, ids: Iterable[int], ts_boot_ns: int) -> None:
        """Take note of ids that were read; a hole is forgotten after two minutes."""
        for number in sorted(ids):
            if number > self.highest:
                first = max(self.highest + 1, number - _MOST_HOLES)
                self._holes.update(dict.fromkeys(range(first, number), ts_boot_ns))
                self.highest = number
            else:
                self._holes.pop(number, None)
        for number, since in list(self._holes.items()):
            if ts_boot_ns - since > _PATIENCE_NS or len(self._holes) > _MOST_HOLES:
                del self._holes[number]
