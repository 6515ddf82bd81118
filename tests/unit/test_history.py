"""The service's history: read as one stream, kept within bounds, whatever ends its keeper."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from pidtrail.errors import PidtrailError
from pidtrail.events import Event, Exit, Fork, Lost, Reap, TaskReported, Title
from pidtrail.history import AFTER, Boot, History, numbered
from pidtrail.keeper import LOCK, PARTS, Bounds, Keeper
from pidtrail.sources.replay import Replay
from pidtrail.standing import MAX_ROWS, MAX_UNREAPED, STILL_TOLD_NS, Standing
from pidtrail.store import Recording
from pidtrail.verdict.engine import judge_stream
from tests.unit.records import header
from tests.unit.story import SECOND, Airflow3, Story, at, ref, uuid

ROOT = Path(__file__).resolve().parents[2]
WIDE = Bounds(max_age_s=7 * 86_400, max_bytes=1 << 30)
BOOT = (header().boot_id, header().pid_ns)


class Clock:
    """Both clocks, moved by hand from now on: files have the time of the true one."""

    def __init__(self) -> None:
        self.ns = 1_000 * SECOND
        self.began_s = time.time()

    def wall_s(self) -> float:
        """Return the wall clock."""
        return self.began_s + (self.ns - 1_000 * SECOND) / SECOND

    def now_ns(self) -> int:
        """Return CLOCK_BOOTTIME."""
        return self.ns


def keeper(
    folder: Path, bounds: Bounds = WIDE, clock: Clock | None = None, **changes: Any
) -> Keeper:
    """Return a keeper that has begun a segment."""
    clock, head = clock or Clock(), header(**changes)
    made = Keeper(folder, bounds, (head.boot_id, head.pid_ns), clock.wall_s, clock.now_ns)
    made.begin(head)
    return made


def births(first: int, count: int) -> list[Event]:
    """Return so many births and ends, with consecutive numbers."""
    found: list[Event] = []
    for n in range(first, first + count, 2):
        found.append(Fork(n, n * 10, "core", pid=n, start_ticks=n))
        found.append(Exit(n + 1, n * 10 + 5, "core", pid=n, start_ticks=n))
    return found


def lives(first: int, count: int) -> list[Event]:
    """Return so many births, ends and reapings, with consecutive numbers."""
    found: list[Event] = []
    for n in range(first, first + count, 3):
        found.append(Fork(n, n * 10, "core", pid=n, start_ticks=n))
        found.append(Exit(n + 1, n * 10 + 5, "core", pid=n, start_ticks=n))
        found.append(Reap(n + 2, n * 10 + 6, "core", pid=n, start_ticks=n))
    return found


def read(folder: Path) -> list[Event]:
    """Return all of a history that is of one boot."""
    (boot,) = History(folder).boots()
    events = list(boot.events())
    assert boot.problems == []
    return events


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(0, 20)))
def test_segments_are_read_as_the_one_stream_that_they_are(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int]
) -> None:
    """Wherever a segment began: each record once, in order."""
    folder = tmp_path_factory.mktemp("history")
    events = births(1, 20)
    kept = keeper(folder)
    for place, event in enumerate(events):
        if place in cuts:
            kept.begin(header())
        kept.write([event])
    kept.close()

    assert read(folder) == events
    assert len(numbered(folder)) == 1 + len(cuts - {20})


def story_of_two_tries() -> tuple[Story, int]:
    """Return a story of a failure and the retry, and how many records it had before the latter."""
    story = Airflow3()
    story.run("worker", "first", ref(1, uuid(1))).exit("first", 256).reap("first", 1)
    story.report(ref(1, uuid(1)), "up_for_retry", "first", end_date=at(story.now_ns))
    story.idle("worker").wait(5)
    story.run("worker", "second", ref(2, uuid(2)))
    before = len(story.events)
    story.exit("second").reap("second", 1)
    story.report(ref(2, uuid(2)), "success", "second", end_date=at(story.now_ns))
    return story, before


def verdicts_of(boot: Boot) -> dict[int | None, tuple[str, str, list[int]]]:
    """Return code, confidence and evidence of each try in a stream."""
    report = judge_stream(boot.header, boot.events(), problems=boot.problems)
    return {v.task.try_number: (v.code, v.confidence, v.evidence) for v in report.verdicts}


def test_a_segment_that_begins_in_the_middle_of_a_task_tells_all_of_it(tmp_path: Path) -> None:
    """Alone it names the same runner by the same evidence, and does not judge what was over."""
    story, before = story_of_two_tries()
    clock = Clock()
    clock.ns = story.now_ns
    kept = keeper(tmp_path, clock=clock)
    kept.write(story.events[:before])
    kept.begin(header())
    kept.write(story.events[before:])
    kept.close()
    whole = verdicts_of(History(tmp_path).boots()[0])
    last = History(tmp_path).segments()[-1]
    alone = verdicts_of(Boot([last]))

    assert list(whole) == [1, 2]
    assert whole[2][:2] == alone[2][:2] == ("match", "proved")
    assert whole[2][2] == alone[2][2]
    assert list(alone) == [2]
    # The same file through the door that `explain FILE` takes.
    replay = Replay(str(last.path))
    assert [event.seq for event in replay.events()] == sorted(
        event.seq for event in Boot([last]).events()
    )


def test_the_whole_is_within_its_bytes_and_the_oldest_go_first(tmp_path: Path) -> None:
    bounds = Bounds(max_age_s=86_400, max_bytes=8 << 20)
    clock = Clock()
    kept = keeper(tmp_path, bounds, clock)
    written, most = 1, 0
    while len(kept.closed) < 2 * PARTS and kept.number < 4 * PARTS:
        kept.write(lives(written, 300))
        written += 300
        clock.ns += 3 * SECOND
        if kept.is_due():
            kept.begin(header())
        most = max(most, sum(file.stat().st_size for file in tmp_path.iterdir()))
    kept.close()
    events = read(tmp_path)

    assert bounds.max_bytes / 2 < most <= bounds.max_bytes
    assert events[0].seq > 1
    assert [e.seq for e in events] == list(range(events[0].seq, written))


def test_what_is_older_than_allowed_goes(tmp_path: Path) -> None:
    """Also while nothing happens; a segment that was open for a sixteenth of the time ends."""
    clock = Clock()
    kept = keeper(tmp_path, Bounds(max_age_s=1600, max_bytes=1 << 30), clock)
    first = kept.recorder
    assert first is not None
    kept.write(births(1, 2))
    begun = 0
    for _ in range(1750):
        clock.ns += SECOND
        if kept.is_due():
            kept.begin(header())
            begun += 1
    kept.close()

    assert begun == 17
    assert not first.path.exists()
    assert len(numbered(tmp_path)) == begun


def test_age_counts_over_a_pause_of_the_service(tmp_path: Path) -> None:
    """A segment that was left long ago goes at the next start, by when it was written last."""
    keeper(tmp_path).close()
    ((_, path),) = numbered(tmp_path)
    now_s = Clock().wall_s()
    os.utime(path, (now_s - 8 * 86_400,) * 2)
    keeper(tmp_path).close()

    assert [number for number, _ in numbered(tmp_path)] == [2]


def test_nothing_of_others_is_deleted(tmp_path: Path) -> None:
    """Neither other names, nor another kind of file or a link under the name of a segment."""
    others = {
        "thesis.txt": b"precious",
        "session.db": b"",
        "pidtrail-00000001-20260101T000000Z.db": b"not a recording",
        "pidtrail-00000002-20260101T000000Z.db.old": b"",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "pidtrail-00000003-20260101T000000Z.db").symlink_to(tmp_path / "thesis.txt")
    (tmp_path / "pidtrail-00000004-20260101T000000Z.db").mkdir()
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    clock = Clock()
    kept = keeper(tmp_path, Bounds(max_age_s=16, max_bytes=1 << 20), clock)
    for first in range(1, 30_000, 300):
        kept.write(lives(first, 300))
        clock.ns += 3 * SECOND
        if kept.is_due():
            kept.begin(header())
    kept.close()
    left = {file.name for file in tmp_path.iterdir()}

    assert left > {*others, "pidtrail-00000003-20260101T000000Z.db", LOCK}
    assert (tmp_path / "pidtrail-00000004-20260101T000000Z.db").is_dir()
    assert [n for n, path in numbered(tmp_path) if path.is_file() and not path.is_symlink()][1] > 5
    assert all((tmp_path / name).read_bytes() == content for name, content in others.items())


def test_a_keeper_goes_on_where_the_one_before_it_stopped(tmp_path: Path) -> None:
    """Numbers go on within a boot, and who was alive then is told again."""
    story, before = story_of_two_tries()
    kept = keeper(tmp_path)
    kept.write(story.events[:before])
    kept.close()
    after = keeper(tmp_path)
    runner = story.pids["second"]

    assert after.last_seq == story.events[before - 1].seq
    assert after.last_ns == story.events[before - 1].ts_boot_ns
    assert runner in {key.pid for key in after.standing.alive}

    after.write(story.events[before:])
    after.close()

    assert read(tmp_path) == story.events


def test_a_segment_without_records_hands_the_numbers_on(tmp_path: Path) -> None:
    """A keeper that died before its first record does not make the next one begin anew."""
    first = keeper(tmp_path)
    first.write(births(1, 4))
    first.close()
    keeper(tmp_path).close()

    assert Keeper(tmp_path, WIDE, BOOT).last_seq == 4


def test_another_boot_is_another_stream(tmp_path: Path) -> None:
    """Its numbers begin anew, and the reader keeps the two apart."""
    kept = keeper(tmp_path)
    kept.write(births(1, 6))
    kept.close()
    other = keeper(tmp_path, boot_id="11111111-0000-4000-8000-000000000000")

    assert (other.last_seq, other.last_ns, other.standing.alive) == (0, 0, {})

    other.write(births(1, 2))
    other.close()

    boots = History(tmp_path).boots()
    assert [list(boot.events()) for boot in boots] == [births(1, 6), births(1, 2)]
    assert boots[0].place != boots[1].place


def test_another_pid_namespace_of_the_same_boot_is_another_stream(tmp_path: Path) -> None:
    """A process has another number there."""
    keeper(tmp_path, pid_ns=1).close()
    keeper(tmp_path, pid_ns=2).close()

    assert [boot.place[1] for boot in History(tmp_path).boots()] == [1, 2]


def test_the_header_of_several_segments_promises_what_all_can_keep(tmp_path: Path) -> None:
    """A stretch under source `procfs` makes no verdict of it more confident than that."""
    keeper(tmp_path).close()
    weak = structs.replace(
        header().fidelity, sees_short_lived=False, has_wstatus=False, expected_miss="much"
    )
    changed: dict[str, Any] = {"source": "procfs", "fidelity": weak}
    keeper(tmp_path, **changed).close()
    (boot,) = History(tmp_path).boots()

    assert boot.header.source == "procfs"
    assert not boot.header.fidelity.sees_short_lived
    assert boot.header.fidelity.expected_miss == "much"


@pytest.mark.parametrize("how", ["deleted", "cut", "emptied"])
def test_a_hole_in_the_middle_is_told(tmp_path: Path, how: str) -> None:
    """What the next segment tells again is taken from there; the rest is a loss."""
    kept = keeper(tmp_path)
    kept.write(lives(1, 9))
    kept.begin(header())
    alive = Fork(10, 100, "core", pid=10, start_ticks=10)
    kept.write([alive, *lives(11, 3_999)])
    kept.begin(header())
    last = lives(4_010, 9)
    kept.write(last)
    kept.close()
    _, middle, _ = (path for _, path in numbered(tmp_path))
    if how == "deleted":
        middle.unlink()
    else:
        os.truncate(middle, 60_000 if how == "cut" else 0)
    (boot,) = History(tmp_path).boots()
    events = list(boot.events())
    (lost,) = [event for event in events if isinstance(event, Lost)]

    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert events[:9] == lives(1, 9)
    assert alive in events
    assert events[-9:] == last
    assert lost.count is None
    assert 10 < lost.seq < 4_010
    assert (how == "cut") == bool(boot.problems)


def test_the_oldest_that_are_gone_are_no_loss(tmp_path: Path) -> None:
    """A bounded history begins somewhere."""
    kept = keeper(tmp_path)
    kept.write(lives(1, 9))
    kept.begin(header())
    kept.write(lives(10, 9))
    kept.close()
    numbered(tmp_path)[0][1].unlink()

    assert read(tmp_path) == lives(10, 9)


def test_one_folder_has_one_keeper(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    with pytest.raises(PidtrailError, match="another pidtrail keeps the history"):
        keeper(tmp_path)
    kept.close()
    kept.close()
    keeper(tmp_path).close()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PidtrailError, match="cannot keep a history in"):
        keeper(tmp_path / "file")


def test_reading_from_an_instant_on_leaves_out_the_segments_before(tmp_path: Path) -> None:
    clock = Clock()
    kept = keeper(tmp_path, clock=clock)
    kept.write(lives(1, 9))
    clock.ns += 10 * SECOND
    kept.begin(header())
    kept.write(lives(10, 9))
    kept.close()
    (boot,) = History(tmp_path).boots()

    assert list(boot.since(clock.ns).events()) == lives(10, 9)
    assert list(boot.since(clock.ns - 1).events()) == lives(1, 18)
    assert list(boot.since(0).events(after=15)) == lives(1, 18)[15:]


def test_a_reader_stalls_no_keeper(tmp_path: Path) -> None:
    """Who reads a segment while the next begins is not waited for; it is finished after him."""
    clock = Clock()
    kept = keeper(tmp_path, clock=clock)
    kept.write(births(1, 2_000))
    (boot,) = History(tmp_path).boots()
    reading = boot.events()
    next(reading)
    first = kept.recorder
    assert first is not None

    kept.begin(header())
    kept.write(births(2_001, 10))

    assert kept.problem is None
    assert len([*reading]) == 1_999
    clock.ns += 3 * SECOND
    kept.is_due()
    kept.close()
    assert {file.name for file in tmp_path.iterdir()} == {
        LOCK, *(path.name for _, path in numbered(tmp_path))
    }  # fmt: skip
    assert read(tmp_path) == births(1, 2_010)


def in_another_process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Run Python with the names of this module, and FOLDER, in a process of its own."""
    program = f"from tests.unit.test_history import *\nfolder = Path({str(folder)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", program + textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    )


WRITE_FOR_EVER = """
    kept, clock = keeper(folder, Bounds(86_400, 4 << 20)), Clock()
    kept.now_ns = clock.now_ns
    first = kept.last_seq + 1
    while True:
        kept.write(lives(first, 51))
        first += 51
        print(first - 1, flush=True)
        clock.ns += SECOND
        if kept.is_due():
            kept.begin(header())
            print("segment", flush=True)
    """


@pytest.mark.parametrize("batches", [1, 7, 60, 200])
def test_a_kill_loses_at_most_the_batch_that_was_being_written(
    tmp_path: Path, batches: int
) -> None:
    """Twice in a row, in the middle of writing and of beginning segments; the next goes on."""
    committed = 0
    for _ in range(2):
        with in_another_process(WRITE_FOR_EVER, tmp_path) as writer:
            assert writer.stdout is not None
            for count, line in enumerate(writer.stdout, start=1):
                if count == batches:
                    writer.send_signal(signal.SIGKILL)
                if line.strip().isdigit():
                    committed = int(line)
        events = read(tmp_path)
        numbers = [event.seq for event in events]

        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert committed <= numbers[-1] <= committed + 51
    kept = keeper(tmp_path)
    assert kept.last_seq == numbers[-1]
    kept.close()
    assert {file.suffix for file in tmp_path.iterdir()} == {".db", ".lock"}
    assert read(tmp_path) == events


def test_a_journal_without_a_word_goes_when_the_next_keeper_comes(tmp_path: Path) -> None:
    """What a keeper leaves that is killed between making SQLite's journal and writing it."""
    kept = keeper(tmp_path)
    kept.write(births(1, 10))
    kept.close()
    ((_, path),) = numbered(tmp_path)
    journal = path.with_name(f"{path.name}-journal")
    journal.touch()
    assert read(tmp_path) == births(1, 10)
    assert journal.exists()

    keeper(tmp_path).close()

    assert not journal.exists()
    assert read(tmp_path) == births(1, 10)


def test_a_history_is_readable_while_another_process_writes_and_deletes(tmp_path: Path) -> None:
    """Each time in order and without a hole, up to at least what was there at the beginning."""
    with in_another_process(WRITE_FOR_EVER, tmp_path) as writer:
        assert writer.stdout is not None
        try:
            seen, begun = 0, 0
            while begun < 3 * PARTS:
                line = writer.stdout.readline().strip()
                if line.isdigit():
                    seen = int(line)
                    continue
                begun += 1
                if begun % 4:
                    continue
                (boot,) = History(tmp_path).boots()
                numbers = [e.seq for e in boot.events() if not isinstance(e, Lost)]
                assert numbers[-1] >= seen
                assert all(one < other for one, other in pairwise(numbers))
        finally:
            writer.kill()


@pytest.mark.parametrize("room", [5_000, 30_000])
def test_a_full_disk_ends_nothing(tmp_path: Path, room: int) -> None:
    """Neither the segment nor the next one can be written; later both can, and the hole is told."""
    code = f"""
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        kept = keeper(folder)
        kept.write(births(1, 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
        kept.write(births(11, 4_000))
        print(kept.problem is not None)
        try:
            kept.begin(header())
        except PidtrailError as error:
            kept.put_off(str(error))
            print("put off", kept.is_due())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        kept.write(births(4_011, 10))
        print(kept.problem)
        kept.begin(header())
        kept.write(births(4_021, 10))
        kept.close()
        """
    with in_another_process(code, tmp_path) as writer:
        assert writer.stdout is not None
        said = writer.stdout.read().split("\n")
    events = read(tmp_path)
    lost = [event for event in events if isinstance(event, Lost)]

    assert said[:3] == ["True", "put off False", "None"]
    assert [(one.seq, one.count) for one in lost] == [(11, 4_000)]
    assert [e for e in events if not isinstance(e, Lost)] == [*births(1, 10), *births(4_011, 20)]


def test_a_stump_of_a_segment_is_passed_over(tmp_path: Path) -> None:
    """A keeper that was killed while it made a file leaves an empty one; its number is not used."""
    (tmp_path / "pidtrail-00000007-20260101T000000Z.db").touch()
    kept = keeper(tmp_path)
    kept.write(births(1, 2))
    kept.close()

    assert read(tmp_path) == births(1, 2)
    assert [number for number, _ in numbered(tmp_path)] == [7, 8]


def test_each_segment_says_what_was_before_it(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    kept.write(births(1, 10))
    kept.begin(header())
    kept.close()
    last = Recording(numbered(tmp_path)[-1][1])

    assert last.notes() == {AFTER: "10"}
    assert last.header.began_ns == 1_000 * SECOND
    with sqlite3.connect(last.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()
    last.close()


def test_what_still_holds_is_bounded() -> None:
    """Neither processes that nobody reaps, nor the rows of a busy Airflow, nor titles pile up."""
    standing = Standing()
    for n in range(1, 10_000, 2):
        standing.take(births(n, 2))
        standing.apply(Title(n, n, "core", pid=1, start_ticks=1, title=f"title {n}"))
        standing.apply(TaskReported(n, n, "airflow-db", task=ref(n), state="running", via="db",
                                    table="task_instance_history"))  # fmt: skip

    assert len(standing.unreaped) == MAX_UNREAPED
    assert len(standing.rows) == MAX_ROWS
    assert len(standing.told_again(0)) <= 2 * MAX_UNREAPED + MAX_ROWS + 4


def test_a_row_that_is_over_is_told_again_for_a_while_only() -> None:
    standing = Standing()
    standing.apply(TaskReported(1, 1, "airflow-db", task=ref(1), state="success", via="db"))

    assert len(standing.told_again(STILL_TOLD_NS)) == 1
    assert standing.told_again(STILL_TOLD_NS + 1) == []
