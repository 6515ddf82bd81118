"""
The index in a recording: what a question reads instead of everything (words.py).

Tables beside those of store.py, written with each batch in one transaction:

words   a row per record that is found by itself: `body` is the record as JSON
names   under which names a word is found
places  which batches tell something of a block of numbers, or, where `block` is negative,
        of births to one
span    one row: the time of the first record, the latest time, and which rules made the names;
        no row where the index is not to be used

A recording without them, by an older pidtrail, is read from beginning to end. So is one
whose answer they do not tell for certain (verdict/lookup.py). Damage in what a question does
not read is not noticed; where it is met, everything is read up to it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pidtrail import codec
from pidtrail.events import AirflowFact, Fork, Observed, TaskReported
from pidtrail.words import BLOCK, Words, birth_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pidtrail.events import Event, Header

RULES: Final = 1
"""Counts up when a record gets other names than before (words.py, airflow/identify.py)."""
TABLES: Final = (
    "CREATE TABLE words (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    """CREATE TABLE names (
    name TEXT NOT NULL, word INTEGER NOT NULL, PRIMARY KEY (name, word)
) WITHOUT ROWID""",
    """CREATE TABLE places (
    block INTEGER NOT NULL, first_seq INTEGER NOT NULL, PRIMARY KEY (block, first_seq)
) WITHOUT ROWID""",
    "CREATE TABLE span (first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, rules INTEGER)",
)
NAMED: Final = """
SELECT id, CAST(body AS BLOB) FROM names JOIN words ON id = word WHERE name = ? ORDER BY id
"""
BEGINNING: Final = """
SELECT id, CAST(body AS BLOB) FROM words WHERE id IN (
    SELECT word FROM names
    WHERE name >= ?1 AND name < ?2 AND (?3 = '' OR substr(name, -length(?3)) = ?3)
) ORDER BY id
"""
PLACES: Final = "SELECT first_seq FROM places WHERE block = ? ORDER BY first_seq"
BATCH: Final = "SELECT CAST(body AS BLOB) FROM batches WHERE first_seq = ?"
TIME: Final = attrgetter("ts_boot_ns")
MOST_WORDS: Final = 40_000
MOST_BATCHES: Final = 4_000
"""Who needs more of them reads everything as fast."""


class TooMuch(Exception):
    """A question needs so much that the index is of no use for it."""


class IndexWriter:
    """
    Writes the index of a recording with its batches, within the caller's transactions.

    Raises sqlite3.Error.
    """

    def __init__(self, db: sqlite3.Connection, header: Header) -> None:
        self.db = db
        self.words = Words(header)
        self.last_word = 0
        self.first_ns = self.last_ns = 0
        for statement in TABLES:
            db.execute(statement)
        db.execute("INSERT INTO span VALUES (0, 0, ?)", (RULES,))

    def write(self, parts: Sequence[Sequence[Event]], *, plain: bool) -> None:
        """Write what batches add; `plain` says that all their fields are known (codec.py)."""
        words: list[tuple[int, str]] = []
        names: list[tuple[str, int]] = []
        places: list[tuple[int, int]] = []
        number = self.last_word
        for part in parts:
            self.words.learn(part)
        for part in parts:
            first_seq = part[0].seq
            found, blocks = self.words.entry(part)
            places += [(block, first_seq) for block in blocks]
            for event, called in found:
                number += 1
                words.append((number, codec.encode(event).decode()))
                names += [(name, number) for name in called]
            self.first_ns = self.first_ns or next(filter(None, map(TIME, part)), 0)
            self.last_ns = max(self.last_ns, *map(TIME, part))
        self.db.executemany("INSERT INTO places VALUES (?, ?)", places)
        if words:
            self.db.executemany("INSERT INTO words VALUES (?, ?)", words)
            self.db.executemany("INSERT INTO names VALUES (?, ?)", names)
        if plain and self.words.sound:
            told = (self.first_ns, self.last_ns)
            self.db.execute("UPDATE span SET first_ns = ?, last_ns = ?", told)
        else:
            self.db.execute("DELETE FROM span")
        self.last_word = number

    def undone(self) -> None:
        """Take in that what was written last is not there."""
        self.words.forget()


class Index:
    """
    Reads the index of a recording, all of it as it is at one moment, until `close`.

    `usable` says whether there is one that may be asked. What it returns is kept, so that
    a record is the same object however it was found. Raises TooMuch, RecordingError,
    and sqlite3.Error where the file is damaged.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        db.execute("BEGIN")
        row = None
        with contextlib.suppress(sqlite3.Error):
            row = db.execute("SELECT first_ns, last_ns, rules FROM span").fetchone()
        self.first_ns: int
        self.last_ns: int
        self.first_ns, self.last_ns, rules = row or (0, 0, None)
        self.usable = rules == RULES
        self.words: dict[int, Event] = {}
        self.called: dict[str, list[Event]] = {}
        self.batches: dict[int, dict[int, list[Event]]] = {}

    def named(self, name: str) -> list[Event]:
        """Return the words of a name."""
        if name not in self.called:
            self.called[name] = self.taken(self.db.execute(NAMED, (name,)))
        return self.called[name]

    def beginning(self, begin: str, end: str = "") -> list[Event]:
        """Return the words of all names that begin with some text, and end with some."""
        return self.taken(self.db.execute(BEGINNING, (begin, begin[:-1] + after(begin[-1]), end)))

    def names(self, begin: str) -> list[str]:
        """Return all names that begin with some text."""
        found = self.db.execute(
            "SELECT DISTINCT name FROM names WHERE name >= ? AND name < ?",
            (begin, begin[:-1] + after(begin[-1])),
        )
        return [name for (name,) in found]

    def taken(self, rows: Iterable[tuple[int, bytes]]) -> list[Event]:
        """Return the records of rows of words, decoded once."""
        found = list(rows)
        new = [(number, body) for number, body in found if number not in self.words]
        if len(self.words) + len(new) > MOST_WORDS:
            raise TooMuch
        events = codec.decode_batch(b"[" + b",".join(body for _, body in new) + b"]", plain=True)
        self.words.update(zip((number for number, _ in new), events, strict=True))
        return [self.words[number] for number, _ in found]

    def at(self, number: int) -> list[Event]:
        """Return what is told in batches of those who had a number, and of some others."""
        return self.of_block(number >> BLOCK, number)

    def births(self, number: int) -> list[Event]:
        """Return what is told in batches of who was born of those who had a number."""
        return self.of_block(birth_block(number), number)

    def of_block(self, block: int, number: int) -> list[Event]:
        """Return the records in the batches of a block that have to do with a number."""
        return [
            event
            for (first_seq,) in self.db.execute(PLACES, (block,)).fetchall()
            for event in self.batch(first_seq).get(number, ())
        ]

    def batch(self, first_seq: int) -> dict[int, list[Event]]:
        """Return the records of a batch by the numbers of those they speak of."""
        known = self.batches.get(first_seq)
        if known is not None:
            return known
        if len(self.batches) >= MOST_BATCHES:
            raise TooMuch
        found: dict[int, list[Event]] = defaultdict(list)
        row = self.db.execute(BATCH, (first_seq,)).fetchone()
        for event in codec.decode_batch(row[0] if row and row[0] else b"", plain=True):
            for number in numbers_in(event):
                found[number].append(event)
        self.batches[first_seq] = found
        return found

    def close(self) -> None:
        """Let who writes take in what he wrote meanwhile."""
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("COMMIT")


def numbers_in(event: Event) -> set[int]:
    """Return the numbers of a process in a record, and that of who it was born of."""
    if event.pid is None or isinstance(event, TaskReported | AirflowFact):
        return set()
    if not isinstance(event, Fork | Observed):
        return {event.pid}
    above = () if event.ppid is None else (event.ppid,)
    return {event.pid, *(event.ns_pids or ()), *above}


def after(letter: str) -> str:
    """Return the next letter, in SQLite's order."""
    return chr(ord(letter) + 1)
