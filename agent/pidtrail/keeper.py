"""
Keeps a history (history.py): writes it, segment by segment, within bounds of size and age.

Rule 1: a record is committed with its batch, so a kill loses at most the last one.
Rule 2: what is not ours is never deleted: only recordings with names of segments are.
Rule 3: one keeper for a folder, by a lock that the kernel takes back from who died.

A new segment begins when the last has a sixteenth of what is allowed in size or age, or 16 MB,
so that is how exactly the bounds are kept. The oldest go first. A keeper that comes after another
one in the same boot takes over from it: the numbers, who is alive, what Airflow said last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import structs

from pidtrail.errors import PidtrailError
from pidtrail.events import Event, Header
from pidtrail.history import AFTER, Boot, History, numbered
from pidtrail.standing import Standing
from pidtrail.store import Recorder, is_recording

PARTS: Final = 16
MOST_SEGMENT_BYTES: Final = 16 << 20
"""Who takes over reads one segment before he attaches: 64 MB took a second."""
TEND_NS: Final = 2_000_000_000
TRY_AGAIN_NS: Final = 60_000_000_000
SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
LOCK: Final = "history.lock"
FOLDER_MODE: Final = 0o750
SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class Bounds:
    """How much a history may hold: seconds by the wall clock, and bytes."""

    max_age_s: float
    max_bytes: int

    @property
    def segment_bytes(self) -> int:
        """The size from which on a segment is full."""
        return min(self.max_bytes // PARTS, MOST_SEGMENT_BYTES)

    @property
    def segment_age_s(self) -> float:
        """The age from which on a segment is full."""
        return self.max_age_s / PARTS


@dataclass
class Closed:
    """A segment that is written no more; `ended_s` is when it was, by the wall clock."""

    path: Path
    size: int
    ended_s: float


class Keeper:
    """
    Writes the history in a folder, from `begin` to `close`; a sink.

    `place` is the boot and the PID namespace (history.py). `last_seq` and `last_ns` are the
    number and the time of the last record that an earlier keeper wrote there, 0 if none did,
    and `standing` what held then. `problem` says why nothing can be written at the moment.
    Raises PidtrailError if the folder cannot be used or has a keeper.
    """

    def __init__(
        self,
        folder: Path,
        bounds: Bounds,
        place: tuple[str, int | None],
        wall_s: Callable[[], float] = time.time,
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self.folder, self.bounds = folder, bounds
        self.wall_s, self.now_ns = wall_s, now_ns
        self.lock = locked(folder)
        self.recorder: Recorder | None = None
        self.header: Header | None = None
        self.problem: str | None = None
        self.standing = Standing()
        self.last_seq = self.last_ns = 0
        self.began_ns = self.began_bytes = self.tend_ns = self.put_off_ns = 0
        self.closed: list[Closed] = []
        self.unfinished: list[Path] = []
        self.number = 0
        try:
            self.survey()
            self.take_over(place)
        except BaseException:
            os.close(self.lock)
            raise

    def survey(self) -> None:
        """Note the segments that are there, and finish what a killed keeper left."""
        for number, path in numbered(self.folder):
            self.number = number
            if not is_ours(path):
                continue
            if any(Path(f"{path}{left}").exists() for left in SUFFIXES[1:]) and not finished(path):
                self.unfinished.append(path)
            with contextlib.suppress(OSError):
                self.closed.append(Closed(path, size_of(path), path.stat().st_mtime))

    def take_over(self, place: tuple[str, int | None]) -> None:
        """Read on what an earlier keeper of this boot left off."""
        boots = [boot for boot in History(self.folder).boots() if boot.place == place]
        for one in reversed(boots[-1].segments if boots else []):
            newest = Boot([one])
            self.last_seq = max(self.last_seq, one.after)
            for event in newest.events():
                self.standing.apply(event)
                self.last_seq = max(self.last_seq, event.seq)
                self.last_ns = max(self.last_ns, event.ts_boot_ns)
            if self.last_ns:
                break

    def begin(self, header: Header) -> None:
        """
        Begin a segment with this header and what holds; the one before it is finished.

        Raises PidtrailError if it cannot be made; then the one before it goes on.
        """
        now_ns = self.now_ns()
        header = structs.replace(header, began_ns=now_ns)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.wall_s()))
        path = self.folder / f"pidtrail-{self.number + 1:08}-{stamp}.db"
        recorder = Recorder(path, header, {AFTER: str(self.last_seq)})
        recorder.write(self.standing.told_again(now_ns))
        if recorder.problem is not None:
            recorder.db.close()
            delete(path)
            raise PidtrailError(recorder.problem)
        self.end_segment()
        self.number += 1
        self.recorder, self.header, self.began_ns = recorder, header, now_ns
        self.problem = None
        self.began_bytes = size_of(path)
        self.prune()

    def end_segment(self) -> None:
        """Finish the segment that is written; who reads it just now is not waited for."""
        if self.recorder is None:
            return
        recorder, self.recorder = self.recorder, None
        recorder.close(wait=False)
        if recorder.problem is not None:
            self.unfinished.append(recorder.path)
        self.closed.append(Closed(recorder.path, size_of(recorder.path), self.wall_s()))

    def write(self, events: list[Event]) -> None:
        """Write and commit a batch; what cannot be written is counted, and told later."""
        if not events or self.recorder is None:
            return
        self.standing.take(events)
        self.last_seq = max(self.last_seq, events[-1].seq)
        self.recorder.write(events)
        self.problem = self.recorder.problem

    def is_due(self) -> bool:
        """Return whether a segment is to begin; now and then, look after those that are there."""
        now_ns = self.now_ns()
        if now_ns < self.tend_ns or self.recorder is None:
            return False
        self.tend_ns = now_ns + TEND_NS
        self.prune()
        self.unfinished = [path for path in self.unfinished if not finished(path)]
        return (
            # What it began with may be much, and must not make it full.
            size_of(self.recorder.path) >= max(self.bounds.segment_bytes, 2 * self.began_bytes)
            or now_ns - self.began_ns >= self.bounds.segment_age_s * SECOND_NS
        )

    def bound(self, bounds: Bounds) -> None:
        """Keep within these bounds from now on."""
        self.bounds, self.tend_ns = bounds, 0

    def may_begin(self) -> bool:
        """Return whether a segment may begin that could wait; not so after it failed just now."""
        return self.now_ns() >= self.put_off_ns

    def put_off(self, problem: str) -> None:
        """Note that a segment could not begin; it is tried again in a minute."""
        self.problem = problem
        self.tend_ns = self.put_off_ns = self.now_ns() + TRY_AGAIN_NS

    def prune(self) -> None:
        """Delete the oldest segments while there are too many bytes, and those that are too old."""
        oldest_s = self.wall_s() - self.bounds.max_age_s
        # With room for the one that is written, and for what comes before the next look at it.
        full = self.bounds.segment_bytes
        written = size_of(self.recorder.path) if self.recorder is not None else 0
        room = self.bounds.max_bytes - max(full, written) - full // 4
        while self.closed and (
            self.closed[0].ended_s < oldest_s or sum(one.size for one in self.closed) > room
        ):
            delete(self.closed.pop(0).path)

    def close(self) -> None:
        """Finish the segment that is written, and let another keeper in. May be called twice."""
        if self.lock < 0:
            return
        self.end_segment()
        os.close(self.lock)
        self.lock = -1


def locked(folder: Path) -> int:
    """Return a descriptor with the lock of a folder, made if need be. Raises PidtrailError."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise PidtrailError(f"cannot keep a history in {folder}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise PidtrailError(f"another pidtrail keeps the history in {folder}") from None
    return fd


def is_ours(path: Path) -> bool:
    """Return whether a file with the name of a segment is one, or is the stump of one."""
    try:
        if path.is_symlink() or not path.is_file():
            return False
        return path.stat().st_size == 0 or is_recording(path)
    except OSError:
        return False


def parts(path: Path) -> list[os.stat_result]:
    """Return what is known of the files of a segment: itself, and what SQLite keeps beside it."""
    found = []
    for suffix in SUFFIXES:
        with contextlib.suppress(OSError):
            # Not through Path: that takes longer than all else, and this is asked all the time.
            found.append(os.stat(f"{path}{suffix}"))  # noqa: PTH116
    return found


def size_of(path: Path) -> int:
    """Return how many bytes a segment takes."""
    return sum(part.st_size for part in parts(path))


def delete(path: Path) -> None:
    """Delete a segment; one that is gone already is no matter."""
    for suffix in SUFFIXES:
        with contextlib.suppress(OSError):
            Path(f"{path}{suffix}").unlink()


def finished(path: Path) -> bool:
    """
    Make one file of a segment and what is beside it; return whether that is done, or never will be.

    It keeps the time at which it was written last: that is its age. Who reads it prevents it.
    """
    if not path.exists():
        return True
    written = max((part.st_mtime for part in parts(path)), default=0.0)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0)
        ) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError:
        return False
    except sqlite3.Error:
        # Damaged: the reader says so, and it goes when its time has come.
        return True
    with contextlib.suppress(OSError):
        os.utime(path, (written, written))
    with contextlib.suppress(OSError):
        # SQLite took back what it said was begun, and leaves one without a word in it
        # (sqlite3 pager.c hasHotJournal): its writer died before the first.
        Path(f"{path}-journal").unlink()
    return True
