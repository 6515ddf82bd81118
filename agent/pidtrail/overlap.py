"""What two sources both saw while one takes the other's place."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from pidtrail.events import Event

CLOSE_NS: Final = 500_000_000
"""One tells of a fork, exec or exit a little earlier in it than another, and may be interrupted."""


def untold(told: list[Event], heard: list[Event]) -> list[Event]:
    """
    Return what of `heard` has no like in `told`, which is another source's.

    Two records tell the same if they are of a kind, of a pid, and of about one time; each of
    them is taken once, so a second program of a process is none the less the second.
    """
    times: dict[tuple[type[Event], int | None], list[int]] = defaultdict(list)
    for event in told:
        times[type(event), event.pid].append(event.ts_boot_ns)
    found = []
    for event in heard:
        of_it = times.get((type(event), event.pid), [])
        same = next((ts for ts in of_it if abs(ts - event.ts_boot_ns) <= CLOSE_NS), None)
        if same is None:
            found.append(event)
        else:
            of_it.remove(same)
    return found
