from __future__ import annotations

import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from pidtrail.errors import PidtrailError, RecordingError
from pidtrail.events import Event, Fork, Lost
from pidtrail.sources.replay import Replay
from pidtrail.store import BATCH_EVENTS, STORE_VERSION, Recorder, Recording
from tests.unit.records import EVENTS, header

ROOT = Path(__file__).resolve().parents[2]


def forks(first: int, count: int) -> list[Event]:
    """Return so many records with consecutive numbers."""
    return [Fork(n, n * 10, "core", pid=n, start_ticks=n) for n in range(first, first + count)]


def record(path: Path, events: list[Event]) -> Path:
    """Write a recording in one batch and finish it."""
    recorder = Recorder(path, header())
    recorder.write(events)
    recorder.close()
    assert recorder.problem is None
    return path


def read(path: Path) -> list[Event]:
    """Return all events of a recording."""
    recording = Recording(path)
    try:
        return list(recording.events())
    finally:
        recording.close()


def in_another_process(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the names of this module, and PATH, in a process of its own."""
    program = f"from tests.unit.test_store import *\npath = Path({str(path)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENTS, max_size=8))
def test_what_went_in_comes_out(tmp_path: Path, events: list[Any]) -> None:
    """The same events in the same order, whatever is in them, and the same header."""
    path = tmp_path / "session.db"
    numbered = [structs.replace(event, seq=n) for n, event in enumerate(events, start=1)]
    record(path, numbered)

    assert read(path) == numbered
    assert Recording(path).header == header()


def test_a_finished_recording_is_one_file_for_any_sqlite_tool(tmp_path: Path) -> None:
    """No WAL beside it; the common fields are columns, and all of a record is JSON."""
    path = record(tmp_path / "session.db", forks(1, 3))
    with sqlite3.connect(path) as db:
        rows = db.execute(
            "SELECT seq, type, pid, json_extract(body, '$.origin') FROM events WHERE pid = 2"
        ).fetchall()
    db.close()

    assert rows == [(2, "fork", 2, "core")]
    assert [file.name for file in tmp_path.iterdir()] == ["session.db"]


def test_a_recording_is_readable_while_it_is_written(tmp_path: Path) -> None:
    """`explain` on a session that goes on sees all its batches."""
    recorder = Recorder(tmp_path / "session.db", header())
    recorder.write(forks(1, 2))

    assert read(recorder.path) == forks(1, 2)

    recorder.write(forks(3, 2))
    recorder.close()

    assert read(recorder.path) == forks(1, 4)


def test_a_killed_writer_keeps_its_batches(tmp_path: Path) -> None:
    """SIGKILL loses nothing that was handed over, and the file still tells what it is."""
    path = tmp_path / "session.db"
    done = in_another_process(
        """
        recorder = Recorder(path, header())
        recorder.write(forks(1, 500))
        recorder.write(forks(501, 1))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "session.db-wal").exists()

    Recorder(path, header()).close()

    assert read(tmp_path / "session.db.old") == forks(1, 501)
    assert read(path) == []


def test_an_earlier_recording_is_kept_as_old(tmp_path: Path) -> None:
    """The one before it, and no leftovers of a yet older one, are beside the new."""
    path = record(tmp_path / "session.db", forks(1, 1))
    (tmp_path / "session.db.old-wal").write_bytes(b"left by a session that was killed")
    record(path, forks(2, 1))

    assert read(path) == forks(2, 1)
    assert read(tmp_path / "session.db.old") == forks(1, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["session.db", "session.db.old"]


@pytest.mark.parametrize("content", [b"precious", b"SQLite format 3\0" + bytes(100)])
def test_another_file_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(content)
    with pytest.raises(PidtrailError, match="not a recording"):
        Recorder(path, header())

    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(PidtrailError, match="cannot write"):
        Recorder(tmp_path / "no" / "such" / "session.db", header())
    with pytest.raises(PidtrailError, match="not a recording"):
        Recorder(tmp_path, header())


def test_a_full_disk_ends_nothing_and_is_told_in_the_recording(tmp_path: Path) -> None:
    """
    What cannot be written is counted; when there is room again, recording goes on.

    A limit on the size of files stands for the full disk: it needs no privileges.
    """
    path = tmp_path / "session.db"
    done = in_another_process(
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        recorder = Recorder(path, header())
        recorder.write(forks(1, 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for first in (11, 5_011, 10_011):
            recorder.write(forks(first, 5_000))
            print(recorder.problem)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        recorder.write(forks(15_011, 5))
        print(recorder.problem)
        recorder.close()
        """,
        path,
    )
    said = done.stdout.splitlines()
    events = read(path)
    lost = [event for event in events if isinstance(event, Lost)]

    assert done.returncode == 0, done.stderr
    assert all("cannot write to" in line for line in said[:3])
    assert said[3] == "None"
    assert [event for event in events if isinstance(event, Fork)] == forks(1, 10) + forks(15_011, 5)
    assert [(e.seq, e.count, e.from_ns, e.to_ns) for e in lost] == [(11, 15_000, 110, 150_100)]
    assert [event.seq for event in events] == sorted(event.seq for event in events)


def test_a_disk_that_is_full_to_the_end_is_told_where_it_can_be(tmp_path: Path) -> None:
    """Room found at the end holds at least the word that something is missing."""
    recorder = Recorder(tmp_path / "session.db", header())
    recorder.db.execute("PRAGMA max_page_count = 8")
    recorder.write(forks(1, 5_000))

    assert "full" in (recorder.problem or "")

    recorder.close()

    assert [(type(e), e.count) for e in read(recorder.path) if isinstance(e, Lost)] == [
        (Lost, 5_000)
    ]


@pytest.mark.parametrize("missing", [1, 4096, 50_000, 150_000])
def test_a_truncated_recording_gives_what_is_sound(tmp_path: Path, missing: int) -> None:
    """From the first event on, in order, and then says that the rest is missing."""
    path = record(tmp_path / "session.db", forks(1, 8_000))
    os.truncate(path, path.stat().st_size - missing)
    replay = Replay(str(path))
    events = list(replay.events())

    # What is missing first is of the index.
    assert 0 < len(events) < 8_000 + (missing <= 4096)
    assert events == forks(1, len(events))
    last = rf"after event {len(events)}\b|event {len(events) + 1}:|event {len(events)} is the last"
    assert re.search(last, replay.problem or "")


@pytest.mark.parametrize("size", [0, 5, 16, 90, 100, 600])
def test_a_stump_of_a_recording_is_a_clear_error(tmp_path: Path, size: int) -> None:
    path = record(tmp_path / "session.db", forks(1, 10))
    os.truncate(path, size)
    with pytest.raises(RecordingError) as caught:
        Replay(str(path))

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_sound_event_before_a_damage_is_named(tmp_path: Path) -> None:
    path = record(tmp_path / "session.db", forks(1, 3 * BATCH_EVENTS))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE batches SET body = '{' WHERE first_seq = ?", (BATCH_EVENTS + 1,))
    db.close()
    replay = Replay(str(path))

    assert list(replay.events()) == forks(1, BATCH_EVENTS)
    assert f"after event {BATCH_EVENTS}:" in (replay.problem or "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"PRAGMA user_version = {STORE_VERSION + 1}", "newer pidtrail"),
        ("PRAGMA application_id = 5", "not a recording"),
        ("DELETE FROM meta", "no header"),
        ("UPDATE meta SET value = replace(value, 'event/1', 'event/9')", "pidtrail.event/9"),
        ("UPDATE meta SET value = 'x'", "not JSON"),
        ("DROP TABLE meta", "no such table"),
    ],
)
def test_a_file_that_is_not_ours_to_read_says_why(tmp_path: Path, change: str, said: str) -> None:
    path = record(tmp_path / "session.db", forks(1, 1))
    with sqlite3.connect(path) as db:
        db.execute(change)
    db.close()
    with pytest.raises(RecordingError, match=said) as caught:
        Recording(path)

    assert str(path) in str(caught.value)


def test_notes_on_the_whole_come_out(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "session.db", header(), {"after": "10"})
    recorder.close()

    assert Recording(recorder.path).notes() == {"after": "10"}


def test_no_such_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        Replay(str(tmp_path / "session.db"))
    with pytest.raises(RecordingError, match="directory"):
        Replay(str(tmp_path))
    with pytest.raises(RecordingError, match="not a recording"):
        Recording(tmp_path)


# For the code that runs in another process and takes its names from here.
__all__ = ["Path", "Recorder", "forks", "header", "os", "resource", "signal"]
