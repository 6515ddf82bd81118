"""
A history: a folder of recordings, one after the other, that the service keeps (keeper.py).

Each file is a segment: a recording like those of `trace -o`, readable alone. It begins with
a header of its own and with what still held when it began (standing.py), under the numbers
and times which those records had when they were first told. So whoever reads several
segments passes over each number that was read already, and nothing is lost by it if the
segment before is damaged or gone.

Boots
-----
Processes are known by number and start within one boot, and numbers of records go on within
one boot, across segments and restarts of the service. So a history is read boot by boot,
one tree for each: never compare keys, instants of CLOCK_BOOTTIME or numbers of two boots.
The same holds for two PID namespaces of one boot, if the service was moved from one into
another: a process has other numbers there. `Boot` is such a stretch. When a boot ended all of
its processes were gone, though nothing tells so: what was alive in its last record ended
unseen. Within a boot the time for which no service ran is a `lost` record without a count.

Reading while the service writes is safe: what was committed by then is read. The oldest
segments may go meanwhile; what was not read of them is then no part of the history any more,
or, in the middle of reading, a `lost` record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import structs

from pidtrail.errors import RecordingError
from pidtrail.events import Event, Fidelity, Header, Lost
from pidtrail.store import Recording

NAME: Final = re.compile(r"pidtrail-([0-9]{8,18})-[0-9]{8}T[0-9]{6}Z\.db\Z")
"""The number of a segment, which orders them, and when it began, for people."""
AFTER: Final = "after"
"""The note in which a segment says the number of the last record before it in its boot."""
ORIGIN: Final = "history"


@dataclass(frozen=True)
class Segment:
    """
    One file of a history.

    `after` is the number of the last record of its boot that was written before it.
    """

    number: int
    path: Path
    header: Header
    after: int


class History:
    """
    A history in a folder, to be read; it need not be there yet.

    `problems` says in one line each what could not be read. For one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def segments(self) -> list[Segment]:
        """Return the segments that are there now, in order."""
        found = []
        for number, path in numbered(self.folder):
            try:
                found.append(segment(number, path))
            except RecordingError as error:
                # Deleted while we looked, or made a moment ago and still empty: no problem.
                if path.exists() and path.stat().st_size:
                    self.problems.append(str(error))
        return found

    def boots(self) -> list[Boot]:
        """Return what there is now, boot by boot, oldest first; often there is only one."""
        found: list[Boot] = []
        for one in self.segments():
            if found and found[-1].place == place(one.header):
                found[-1].segments.append(one)
            else:
                found.append(Boot([one]))
        return found


class Boot:
    """
    The part of a history that is of one boot, and one PID namespace: one stream.

    `problems` says after reading what of it could not be read.
    """

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = segments
        self.problems: list[str] = []

    @property
    def place(self) -> tuple[str, int | None]:
        """The boot and the PID namespace."""
        return place(self.segments[0].header)

    @property
    def header(self) -> Header:
        """
        The header of it all: what holds now, the roots of all, and what all sources could know.

        A verdict is no more confident than the weakest source of a stream.
        """
        return merged([one.header for one in self.segments])

    def since(self, boot_ns: int) -> Boot:
        """Return it from the segment on that was written at an instant of CLOCK_BOOTTIME."""
        kept = self.segments
        while len(kept) > 1 and (kept[1].header.began_ns or 0) <= boot_ns:
            kept = kept[1:]
        return Boot(kept)

    def events(self, after: int = 0) -> Iterator[Event]:
        """
        Yield the records with higher numbers than `after`, each once, in order.

        With a `lost` record where a segment, or a part of one, is missing.
        """
        return once(map(self.part, self.segments), self.problems, after)

    def part(self, one: Segment) -> Part:
        """Return a segment as it is read."""
        return Part(one.path.name, one.after, one.header.began_ns, self.read(one))

    def read(self, one: Segment) -> Iterator[Event]:
        """Yield the records of a segment. Raises RecordingError where it cannot be read on."""
        recording = Recording(one.path)
        try:
            yield from recording.events()
        finally:
            recording.close()


class Part(NamedTuple):
    """
    The records of a segment, wherever they come from; `began_ns` as in its header.

    Reading them raises RecordingError where they cannot be read on.
    """

    name: str
    after: int
    began_ns: int | None
    events: Iterator[Event]


def once(parts: Iterable[Part], problems: list[str], after: int = 0) -> Iterator[Event]:
    """
    Yield the records of a boot with higher numbers than `after`, each once, in order.

    With a `lost` record where a segment, or a part of one, is missing; `problems` gets why.
    """
    last, last_ns = after, 0
    for one in parts:
        again: list[Event] = []
        # Not so at the beginning: what is older than the first segment is no part of it.
        missing = 0 < last < one.after
        try:
            for event in one.events:
                last_ns = max(last_ns, event.ts_boot_ns)
                if event.seq <= last:
                    continue
                if missing and event.seq <= one.after:
                    again.append(event)
                    continue
                if missing:
                    yield from bridge(last, one, again, last_ns)
                    missing = False
                last = event.seq
                yield event
        except RecordingError as error:
            problems.append(str(error))
        if missing:
            yield from bridge(last, one, again, last_ns)
            last = one.after


def bridge(last: int, one: Part, again: Sequence[Event], from_ns: int) -> list[Event]:
    """Return what is known of the records before a segment: those told again, and the gap."""
    known = {event.seq for event in again}
    hole = next((n for n in range(last + 1, one.after + 1) if n not in known), None)
    if hole is None:
        return list(again)
    to_ns = one.began_ns
    lost = Lost(
        hole, to_ns or from_ns, ORIGIN, from_ns=from_ns or None, to_ns=to_ns,
        reason=f"records before {one.name} are missing in the history",
    )  # fmt: skip
    return sorted([*again, lost], key=lambda event: event.seq)


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the files with names of segments, by number; none if there is no such folder."""
    try:
        names = [(NAME.match(path.name), path) for path in folder.iterdir()]
    except OSError:
        return []
    return sorted((int(match[1]), path) for match, path in names if match is not None)


def segment(number: int, path: Path) -> Segment:
    """Return what a file tells of itself. Raises RecordingError."""
    recording = Recording(path)
    try:
        after = recording.notes().get(AFTER, "0")
    finally:
        recording.close()
    return Segment(number, path, recording.header, int(after) if after.isdigit() else 0)


def place(header: Header) -> tuple[str, int | None]:
    """Return within what keys can be compared: the boot and the PID namespace."""
    return header.boot_id, header.pid_ns


def merged(headers: Sequence[Header]) -> Header:
    """Return the header of several streams of one boot that follow each other."""
    newest = headers[-1]
    roots = {(root.pid, root.start_ticks): root for header in headers for root in header.roots}
    return structs.replace(
        newest,
        fidelity=weakest([header.fidelity for header in headers]),
        roots=list(roots.values()),
        began_ns=headers[0].began_ns,
    )


def weakest(known: Sequence[Fidelity]) -> Fidelity:
    """Return what all sources can know."""
    missed = dict.fromkeys(one.expected_miss for one in known if one.expected_miss)
    flags = {
        name: all(getattr(one, name) for one in known)
        for name in Fidelity.__struct_fields__
        if name != "expected_miss"
    }
    return Fidelity(**flags, expected_miss="; ".join(missed) or None)
