"""
A recording: one SQLite file that holds a header and the events, nothing derived.

Readable with any SQLite tool: view `events` has a row per record, its common
fields as columns and all of it as JSON in `body`; table `meta` has the header.
Records are stored in batches, each a JSON array in one row: a row per record
took more than everything else that is done to a record. While it is written
the file is in WAL mode and every batch is committed, so a killed session keeps
all up to its last batch; closing leaves one file. Beside them stands an index (index.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pidtrail import __version__, codec
from pidtrail.errors import PidtrailError, RecordingError
from pidtrail.events import Event, Header
from pidtrail.gap import Gap
from pidtrail.index import Index, IndexWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION_ID: Final = 0x70696474
"""`pidt`, so that file(1) and we can tell a recording from another SQLite file."""
STORE_VERSION: Final = 1
MAGIC: Final = b"SQLite format 3\0"

TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE batches (
    first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, plain INTEGER NOT NULL,
    body TEXT NOT NULL
)""",
    """CREATE VIEW events AS SELECT
    json_extract(value, '$.seq') AS seq, json_extract(value, '$.ts_boot_ns') AS ts_boot_ns,
    json_extract(value, '$.type') AS type, json_extract(value, '$.pid') AS pid,
    json_extract(value, '$.start_ticks') AS start_ticks, value AS body
    FROM batches, json_each(batches.body)""",
)
INSERT: Final = "INSERT INTO batches VALUES (?, ?, ?, ?)"
NO_NOTES: Final[Mapping[str, str]] = {}
NEXT: Final = """
SELECT first_seq, last_seq, plain, CAST(body AS BLOB) FROM batches
WHERE first_seq > ? ORDER BY first_seq LIMIT 1
"""
LOWEST_SEQ: Final = -(2**63)
BATCH_EVENTS: Final = 500
"""At most in one row: what a damaged page can take with it."""


class Recorder:
    """
    Writes a recording.

    An earlier recording of that name is kept as NAME.old; any other file is
    refused. `notes` are facts about it as a whole, by name. Raises PidtrailError
    if the file cannot be made.
    """

    def __init__(self, path: Path, header: Header, notes: Mapping[str, str] = NO_NOTES) -> None:
        self.path = path
        self.problem: str | None = None
        self.gap = Gap("store", "the recording could not be written")
        try:
            keep_earlier(path)
            self.db = sqlite3.connect(path, isolation_level=None)
            # Before the WAL, so that the file itself tells what it is, however the session ends;
            # at once, so that who dies meanwhile leaves an empty file and no stump.
            self.db.execute("BEGIN")
            self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.db.execute(f"PRAGMA user_version = {STORE_VERSION}")
            for statement in TABLES:
                self.db.execute(statement)
            self.index = IndexWriter(self.db, header)
            told = {**notes, "header": codec.encode_header(header).decode()}
            self.db.executemany("INSERT INTO meta VALUES (?, ?)", told.items())
            self.db.execute("COMMIT")
            self.db.execute("PRAGMA journal_mode = WAL")
            # A commit must outlive our own death, not the host's: no fsync per batch.
            self.db.execute("PRAGMA synchronous = NORMAL")
            self.db.execute("PRAGMA cache_size = -2048")
        except (sqlite3.Error, OSError) as error:
            raise PidtrailError(f"cannot write {path}: {error}") from error

    def write(self, events: list[Event]) -> None:
        """
        Write and commit a batch.

        If the disk is full the batch is counted, `problem` says so, and the
        next batch tries again: capture and display must not end for it.
        """
        if not events:
            return
        if not self.insert(events):
            self.gap.add(events)

    def insert(self, events: list[Event]) -> bool:
        """Commit events, and with them what tells of an earlier gap; return whether that worked."""
        if self.gap:
            events = [self.gap.lost(), *events]
        parts = [events[at : at + BATCH_EVENTS] for at in range(0, len(events), BATCH_EVENTS)]
        try:
            self.db.execute("BEGIN")
            rows = [row_of(part) for part in parts]
            self.db.executemany(INSERT, rows)
            if parts:
                self.index.write(parts, plain=all(plain for _, _, plain, _ in rows))
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            # SQLite ends the transaction itself after some errors, and may fail to end it too.
            with contextlib.suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            self.index.undone()
            self.problem = f"cannot write to {self.path}: {error}"
            return False
        self.gap.close()
        self.problem = None
        return True

    def close(self, *, wait: bool = True) -> None:
        """
        Finish: one file, no WAL beside it.

        Somebody who reads it just then keeps the WAL there, and `problem` says so; he is
        waited for some seconds, or not at all.
        """
        if self.gap:
            self.insert([])
        if not wait:
            self.db.execute("PRAGMA busy_timeout = 0")
        try:
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.db.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            self.problem = f"cannot finish {self.path}: {error}"
        finally:
            self.db.close()


def row_of(part: list[Event]) -> tuple[int, int, bool, str]:
    """Return the row of a batch; `plain` says that all its fields are known to this version."""
    plain = codec.is_plain(part)
    return part[0].seq, part[-1].seq, plain, codec.encode_batch(part, plain=plain).decode()


def keep_earlier(path: Path) -> None:
    """Move an earlier recording out of the way. Raises PidtrailError for any other file."""
    if not path.exists() or path.stat().st_size == 0:
        return
    if not is_recording(path):
        raise PidtrailError(f"{path} exists and is not a recording", "choose another name")
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        old = path.with_name(f"{path.name}.old{suffix}")
        # SQLite would take the WAL of a yet older recording for this one's, and spoil it.
        old.unlink(missing_ok=True)
        if beside.exists():
            beside.rename(old)
    path.rename(path.with_name(path.name + ".old"))


def is_sqlite(path: Path) -> bool:
    """Return whether a file begins as SQLite files do."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_recording(path: Path) -> bool:
    """Return whether a file is an SQLite file with our application id (byte 68 of its header)."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head.startswith(MAGIC) and int.from_bytes(head[68:72], "big") == APPLICATION_ID


class Batch(NamedTuple):
    """A row: `body` is a JSON array; `plain`, that its writer knew all fields in it."""

    first_seq: int
    last_seq: int
    plain: bool
    body: bytes


class Recording:
    """
    Reads a recording.

    Raises RecordingError if it is no recording, or one of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Read-write where we may: a session that was killed left a WAL that must be taken in.
            # By SQLite alone: to close a file takes all locks on it from the whole process
            # (fcntl(2)), and the one who writes it may be another thread of ours.
            self.db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None
            )
        except sqlite3.Error as error:
            why = f"cannot be read: {error}" if path.is_file() else "is not a recording"
            raise RecordingError(f"{path} {why}") from None
        self.truncated = False
        try:
            self.header = self.header_in_spite_of_damage()
        except sqlite3.OperationalError as error:
            self.db.close()
            raise RecordingError(f"{path} cannot be read: {error}") from error
        except sqlite3.Error as error:
            self.db.close()
            raise RecordingError(f"{path} is damaged: {error}") from error
        except BaseException:
            self.db.close()
            raise

    def header_in_spite_of_damage(self) -> Header:
        """
        Return the header, also of a file whose end is missing.

        SQLite refuses a file that is shorter than its first page says, unless
        the schema may be repaired (sqlite3 btree.c lockBtree). What is there is
        sound all the same: nothing is written, and a missing page is an error
        when it is met.
        """
        try:
            header = self.read_header()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise RecordingError(f"{self.path} is not a recording") from error
            self.truncated = True
            self.db.execute("PRAGMA writable_schema = ON")
            self.db.execute("PRAGMA query_only = ON")
            return self.read_header()
        # Of a page that is cut in two, the missing half reads as zeros.
        page_size = self.db.execute("PRAGMA page_size").fetchone()[0]
        self.truncated = self.path.stat().st_size % page_size != 0
        return header

    def read_header(self) -> Header:
        """Return the header, after checking that the file is ours and of a version we know."""
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        application = self.db.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            raise RecordingError(f"{self.path} is an SQLite file but not a recording")
        if version > STORE_VERSION:
            raise RecordingError(
                f"{self.path} was written by a newer pidtrail (version {version} of the file, "
                f"this one reads {STORE_VERSION})"
            )
        row = self.db.execute("SELECT value FROM meta WHERE name = 'header'").fetchone()
        if row is None:
            raise RecordingError(f"{self.path} has no header")
        try:
            return codec.decode_header(row[0])
        except RecordingError as error:
            raise RecordingError(f"{self.path}: {error}") from error

    def events(self) -> Iterator[Event]:
        """
        Yield all events in order.

        Raises RecordingError at the place where the file is damaged; what was
        yielded before is sound.
        """
        for _, events in self.parts():
            yield from events

    def parts(self) -> Iterator[tuple[int, list[Event]]]:
        """Yield the events batch by batch, each with its name for `part`. Raises as `events`."""
        last = 0
        for batch in self.batches():
            try:
                yield batch.first_seq, self.decoded(batch)
            except RecordingError as error:
                raise RecordingError(
                    f"{self.path} is damaged after event {last}: {error}"
                ) from error
            last = batch.last_seq

    def part(self, first_seq: int) -> list[Event]:
        """Return the events of a batch that was read before. Raises RecordingError."""
        try:
            row = self.db.execute(NEXT, (first_seq - 1,)).fetchone()
        except sqlite3.Error as error:
            raise RecordingError(f"{self.path} is damaged: {error}") from error
        if row is None or row[0] != first_seq:
            raise RecordingError(f"{self.path} has lost event {first_seq} meanwhile")
        return self.decoded(Batch(*row))

    def decoded(self, batch: Batch) -> list[Event]:
        """Return the events of a batch. Raises RecordingError."""
        own_version = self.header.version == __version__
        return codec.decode_batch(batch.body, plain=bool(batch.plain) and own_version)

    def batches(self) -> Iterator[Batch]:
        """
        Yield the rows in order. Raises RecordingError at the place where the file is damaged.

        Each is read by itself: a read that stays open while the caller is busy with what
        it got would keep the writer from taking its WAL in.
        """
        first, last = LOWEST_SEQ, 0
        try:
            while (row := self.db.execute(NEXT, (first,)).fetchone()) is not None:
                first, last_seq, plain, body = row
                # Of a page that is cut in two, the missing half reads as zeros.
                if body is None:
                    raise sqlite3.DatabaseError("a row is empty")
                yield Batch(first, last_seq, bool(plain), body)
                last = last_seq
        except sqlite3.Error as error:
            raise RecordingError(f"{self.path} is damaged after event {last}: {error}") from error
        if self.truncated:
            raise RecordingError(f"{self.path} is truncated; event {last} is the last one found")

    def index(self) -> Index | None:
        """Return the index, None if there is none that tells of all that is there."""
        if self.truncated or self.header.version != __version__:
            return None
        index = Index(self.db)
        if not index.usable:
            index.close()
            return None
        return index

    def last_seq(self) -> int:
        """Return the number of the last event, 0 if there is none. Raises RecordingError."""
        try:
            found = self.db.execute("SELECT max(last_seq) FROM batches").fetchone()[0]
        except sqlite3.Error as error:
            raise RecordingError(f"{self.path} is damaged: {error}") from error
        return int(found or 0)

    def notes(self) -> dict[str, str]:
        """Return the facts about the session as a whole."""
        try:
            return dict(self.db.execute("SELECT name, value FROM meta WHERE name <> 'header'"))
        except sqlite3.Error:
            return {}

    def close(self) -> None:
        """Close the file."""
        self.db.close()
