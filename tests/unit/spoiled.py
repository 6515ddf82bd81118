"""What can become of a history on its way: records in another order, missing, or coarser."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec import structs

from pidtrail.events import Event, Lost, TaskReported
from tests.unit.crowd import crowd
from tests.unit.story import SECOND


def cut(events: list[Event], chance: Random) -> list[Event]:
    """Begin and end anywhere."""
    begin, end = sorted(chance.choices(range(len(events) + 1), k=2))
    return events[begin:end]


def holed(events: list[Event], chance: Random) -> list[Event]:
    """Leave out records anywhere."""
    return [event for event in events if chance.random() < 0.8]


def without_a_kind(events: list[Event], chance: Random) -> list[Event]:
    """Leave out all records of one type, as a poor source does."""
    kind = type(chance.choice(events))
    return [event for event in events if type(event) is not kind]


def tied(events: list[Event], chance: Random) -> list[Event]:
    """Let a coarse clock give many records one time."""
    step = chance.choice([20_000_000, 1_000_000_000])
    return [structs.replace(e, ts_boot_ns=e.ts_boot_ns // step * step) for e in events]


def few_numbers(events: list[Event], chance: Random) -> list[Event]:
    """Let the kernel use its numbers again and again."""
    count = chance.choice([2, 3, 5])

    def number(pid: int | None) -> int | None:
        return None if pid is None else 1000 + pid % count

    spoiled: list[Event] = []
    for event in events:
        changed = {"pid": number(event.pid)}
        if isinstance(event, TaskReported):
            changed["recorded_pid"] = number(event.recorded_pid)
        elif getattr(event, "ppid", None) not in {None, 1}:
            changed["ppid"] = number(event.ppid)  # type: ignore[union-attr]
        spoiled.append(structs.replace(event, **changed))
    return spoiled


def shuffled(events: list[Event], chance: Random) -> list[Event]:
    """Let records arrive in any order."""
    return chance.sample(events, len(events))


def lossy(events: list[Event], chance: Random) -> list[Event]:
    """Let a source say that it lost something."""
    ts_boot_ns = chance.choice(events).ts_boot_ns
    lost = Lost(10**6, ts_boot_ns, "core", from_ns=ts_boot_ns - SECOND, reason="full")
    return [*events, lost]


Way = Callable[[list[Event], Random], list[Event]]
SPOILED: list[Way] = [cut, holed, without_a_kind, tied, few_numbers]
WAYS: list[Way] = [*SPOILED, shuffled, lossy]


def spoiled_crowd(chance: Random, way: Way | None) -> list[Event]:
    """Return many stories at once, as they are or as they came through; never none."""
    events = crowd(chance)
    return events if way is None else way(events, chance) or events
