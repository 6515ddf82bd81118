"""Source `procfs` on a /proc of our own making, where everything can happen to the reader."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.errors import SourceUnavailable, UsageError
from pidtrail.events import Event, Exec, Exit, Fork, Observed, Reap, Title
from pidtrail.sources.missed import expected_miss, miss_rate
from pidtrail.sources.procdir import ProcDirectory
from pidtrail.sources.procfs import ProcfsSource

SECOND = 1_000_000_000


class World:
    """A directory in the form of /proc, a clock, and a source that looks at both."""

    def __init__(self, place: Path, interval_s: float = 0.1) -> None:
        self.root = place / "proc"
        self.spare = place / "spare"
        self.root.mkdir()
        self.spare.mkdir()
        self.names = count()
        self.clock_ns = 100 * SECOND
        self.source = ProcfsSource(interval_s, self.root, lambda: self.clock_ns)
        self.add(1, 0, "init", start=1)

    def add(
        self,
        pid: int,
        ppid: int,
        comm: str = "python",
        *,
        start: int = 500,
        argv: tuple[str, ...] = ("python", "-m", "thing"),
        exe: str = "/usr/bin/python3",
        session: int = 1,
        state: str = "S",
        threads: int = 1,
    ) -> None:
        """Let a process be there."""
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        numbers = [ppid, 1, session, *[0] * 13, threads, 0, start, *[0] * 30]
        stat = f"{pid} ({comm}) {state} {' '.join(map(str, numbers))}\n"
        (folder / "stat").write_text(stat)
        (folder / "cmdline").write_bytes(b"".join(part.encode() + b"\0" for part in argv))
        (folder / "exe").unlink(missing_ok=True)
        (folder / "exe").symlink_to(exe)

    def give_away(self, pid: int, ppid: int, *, start: int) -> None:
        """Let the number go to another process, which the kernel shows by another inode."""
        held = self.spare / str(next(self.names))
        (self.root / str(pid)).rename(held)
        self.add(pid, ppid, start=start)

    def remove(self, pid: int) -> None:
        """Let a process be gone."""
        shutil.rmtree(self.root / str(pid))

    def open(self, *roots: int) -> list[Event]:
        """Open the source and return its snapshot."""
        self.source.open(roots)
        return self.source.snapshot()

    def later(self, seconds: float = 0.1) -> list[Event]:
        """Let time pass and return what the source then says."""
        self.clock_ns += round(seconds * SECOND)
        return self.source.read()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def kinds(events: list[Event]) -> list[tuple[str, int | None]]:
    return [(type(event).__name__.lower(), event.pid) for event in events]


def test_snapshot_is_the_subtree_and_nobody_else(world: World) -> None:
    """Descendants at any depth are in, parents before children; strangers are not."""
    world.add(10, 1)
    world.add(12, 11)
    world.add(11, 10)
    world.add(99, 1)

    assert [event.pid for event in world.open(10)] == [10, 11, 12]


def test_a_root_that_is_not_there_is_nobody(world: World) -> None:
    assert world.open(4242) == []
    assert world.later() == []


def test_a_birth_is_told_with_its_parent_and_what_proc_shows(world: World) -> None:
    """A fork, then what was seen; the time is that of the look."""
    world.add(10, 1, start=400)
    world.open(10)
    world.add(11, 10, "child", start=777, argv=("child", "--one"))

    birth, seen = world.later()

    assert isinstance(birth, Fork)
    assert (birth.pid, birth.start_ticks, birth.start_ns) == (11, 777, None)
    assert (birth.ppid, birth.parent_start_ticks, birth.comm) == (10, 400, "child")
    assert birth.ts_boot_ns == world.clock_ns
    assert isinstance(seen, Observed)
    assert (seen.argv, seen.dead, seen.origin) == (["child", "--one"], False, "procfs")


def test_a_family_born_between_two_looks_is_told_parents_first(world: World) -> None:
    world.add(10, 1)
    world.open(10)
    world.add(8, 12)
    world.add(12, 10)

    births = [event for event in world.later() if isinstance(event, Fork)]

    assert [(birth.pid, birth.ppid) for birth in births] == [(12, 10), (8, 12)]


def test_nobody_looks_before_the_interval_is_over(world: World) -> None:
    """`read` may be called at any rate."""
    world.add(10, 1)
    world.open(10)
    world.add(11, 10)

    assert world.later(0.05) == []
    assert len(world.later(0.05)) == 2


def test_the_end_is_looked_at_however_long_the_interval(world: World) -> None:
    """Who went since the last look is told before the session is over."""
    world.add(10, 1)
    world.open(10)
    world.remove(10)
    assert world.later(0.05) == []

    assert kinds(world.source.last()) == [("exit", 10), ("reap", 10)]


def test_a_process_that_is_gone_ended_with_an_unknown_status(world: World) -> None:
    """Nothing in /proc says how; all of it is unknown, and nothing is zero."""
    world.add(10, 1)
    world.add(11, 10, start=9)
    world.open(10)
    world.remove(11)

    end, reap = world.later()

    assert isinstance(end, Exit)
    assert (end.pid, end.start_ticks, end.ppid) == (11, 9, 10)
    assert (end.wstatus, end.exit_code, end.termsig, end.utime_ns) == (None, None, None, None)
    assert isinstance(reap, Reap)


def test_a_zombie_has_ended_and_is_reaped_later(world: World) -> None:
    """The end is told when it shows as dead, the reaping when it is gone."""
    world.add(10, 1)
    world.add(11, 10)
    world.open(10)
    world.add(11, 10, state="Z", argv=())
    assert kinds(world.later()) == [("exit", 11)]
    world.remove(11)
    assert kinds(world.later()) == [("reap", 11)]


def test_a_leader_that_ended_first_is_no_dead_process(world: World) -> None:
    """It shows as a zombie while its threads live on (do_task_stat counts them)."""
    world.add(10, 1)
    world.add(11, 10, threads=3)
    world.open(10)
    world.add(11, 10, state="Z", threads=2, argv=())

    assert world.later() == []


def test_a_number_given_again_is_another_process(world: World) -> None:
    """The old one ended, the new one is born, in one look."""
    world.add(10, 1)
    world.add(11, 10, start=500)
    world.open(10)
    world.give_away(11, 10, start=600)

    told = world.later()

    assert kinds(told) == [("exit", 11), ("reap", 11), ("fork", 11), ("observed", 11)]
    assert [event.start_ticks for event in told] == [500, 500, 600, 600]


def test_a_number_given_to_a_stranger_is_not_followed(world: World) -> None:
    world.add(10, 1)
    world.add(11, 10, start=500)
    world.open(10)
    world.give_away(11, 1, start=600)

    assert kinds(world.later()) == [("exit", 11), ("reap", 11)]
    assert world.later() == []


def test_a_new_inode_alone_changes_nothing(world: World) -> None:
    """The kernel drops and makes again what it caches of /proc when memory is short."""
    world.add(10, 1)
    world.add(11, 10, start=500)
    world.open(10)
    world.give_away(11, 10, start=500)

    assert world.later() == []


def test_one_rewritten_argument_is_a_title(world: World) -> None:
    """Setproctitle leaves one string where the arguments were; secrets are removed."""
    world.add(10, 1)
    world.open(10)
    world.add(10, 1, "airflow task ru", argv=("airflow task runner: a b c 7",))

    (title,) = world.later()

    assert isinstance(title, Title)
    assert (title.title, title.comm) == ("airflow task runner: a b c 7", "airflow task ru")


def test_another_program_is_an_exec(world: World) -> None:
    """Whether the file or the arguments are others; number and start stay."""
    world.add(10, 1)
    world.open(10)
    world.add(10, 1, "bash", argv=("bash", "-c", "true"), exe="/bin/bash")
    (become,) = world.later()
    assert isinstance(become, Exec)
    assert (become.argv, become.comm, become.start_ticks) == (["bash", "-c", "true"], "bash", 500)

    world.add(10, 1, "bash", argv=("bash", "-c", "false"), exe="/bin/bash")
    (again,) = world.later(0.3)
    assert isinstance(again, Exec)


def test_a_program_whose_file_was_replaced_is_the_same(world: World) -> None:
    """An upgrade of the package makes the kernel write ` (deleted)` behind the path."""
    world.add(10, 1)
    world.open(10)
    world.add(10, 1, exe="/usr/bin/python3 (deleted)")

    assert world.later() == []


def test_a_name_alone_is_no_title(world: World) -> None:
    world.add(10, 1)
    world.open(10)
    world.add(10, 1, "renamed")

    (rename,) = world.later()

    assert isinstance(rename, Title)
    assert (rename.title, rename.comm) == (None, "renamed")


def test_an_orphan_is_seen_with_who_adopted_it(world: World) -> None:
    """When a parent is gone its children are looked at again, however old they are."""
    world.add(10, 1)
    world.add(11, 10)
    world.add(12, 11)
    world.open(10)
    world.later(60)
    world.later(0.1)
    world.remove(11)
    world.add(12, 10)

    told = world.later(0.1)

    assert kinds(told) == [("exit", 11), ("reap", 11), ("observed", 12)]
    assert isinstance(told[-1], Observed)
    assert told[-1].ppid == 10


def test_a_daemon_is_followed_by_its_session(world: World) -> None:
    """Its parent came and went unseen; that it is in a traced process's session proves descent."""
    world.add(10, 1, session=10)
    world.open(10)
    world.add(12, 1, session=10)
    world.add(13, 1, session=1)

    birth, seen = world.later()

    assert isinstance(birth, Fork)
    assert (birth.pid, birth.ppid) == (12, None)
    assert isinstance(seen, Observed)
    assert seen.ppid == 1


def looks(world: World, pid: int, seconds: float) -> list[float]:
    """Return at which ages a process is opened, its birth being now."""
    opened: list[float] = []
    began_ns = world.clock_ns
    stat = world.source.proc.stat

    def noted(number: int) -> object:
        if number == pid:
            opened.append((world.clock_ns - began_ns) / SECOND)
        return stat(number)

    world.source.proc.stat = noted  # type: ignore[assignment, method-assign]
    for _ in range(round(seconds * 10)):
        world.later(0.1)
    return opened


def test_old_processes_are_looked_at_less(world: World) -> None:
    """Young ones change; after ten seconds once in ten seconds is enough."""
    world.add(10, 1)
    world.open(10)

    assert looks(world, 10, 25) == [0.1, 0.3, 1.0, 3.0, 10.0, 20.0]


@pytest.mark.parametrize(
    "title",
    ["airflow worker -- LocalExecutor: <idle>", "airflow task supervisor: ['airflow', 'x']"],
)
def test_airflow_workers_are_looked_at_every_time(world: World, title: str) -> None:
    """They get a new title for each task, at any age."""
    world.add(10, 1, argv=(title,))
    world.open(10)

    assert len(looks(world, 10, 2)) == 20


def test_only_what_changed_is_opened(world: World) -> None:
    """Two hundred processes that stay cost one listing, one that is new one open more."""
    for pid in range(100, 300):
        world.add(pid, 1)
    world.open()
    opened: list[int] = []
    world.source.proc.stat = opened.append  # type: ignore[assignment, method-assign]
    world.later()
    assert opened == []
    world.add(5000, 1)
    world.later()
    assert opened == [5000]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"11 (x) S", "not as proc_pid_stat"),
        (b"11 (x) S a b c" + b" z" * 30, "not as proc_pid_stat"),
        (b"\xff\xfe\0", "not as proc_pid_stat"),
    ],
)
def test_a_stat_that_makes_no_sense_is_counted_and_passed_over(
    world: World, content: bytes, reason: str
) -> None:
    """It is told once, and a process that is in already stays."""
    world.add(10, 1)
    world.add(11, 10)
    world.open(10)
    (world.root / "11" / "stat").write_bytes(content)
    (world.root / "12").mkdir()
    (world.root / "12" / "stat").write_bytes(content)

    assert world.later() == []
    assert [reason in problem for problem in world.source.problems()] == [True]
    world.later(0.3)
    assert world.source.problems() == []
    assert sum(world.source.proc.troubles.values()) >= 3


def test_a_comm_that_looks_like_the_rest_of_the_line(world: World) -> None:
    """Spaces, newlines and parentheses in a name move no field."""
    world.add(10, 1, "a) R 99 (b\n) S 5", start=321)

    (seen,) = world.open(10)

    assert isinstance(seen, Observed)
    assert (seen.comm, seen.ppid, seen.start_ticks) == ("a) R 99 (b\n) S 5", 1, 321)


def test_proc_that_is_gone_ends_nobody(world: World) -> None:
    """An unmounted /proc is a trouble of the reader, not the death of everybody."""
    world.add(10, 1)
    world.open(10)
    hidden = world.root.rename(world.spare / "hidden")
    assert world.later() == []
    world.root.mkdir()
    assert world.later() == []
    assert len(world.source.problems()) == 2
    world.root.rmdir()
    hidden.rename(world.root)

    assert world.later() == []
    assert list(world.source.members) == [10]


def test_files_that_may_not_be_read_are_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EACCES on a link or a file leaves a null and one line."""

    def refuse(_path: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "readlink", refuse)
    world.add(10, 1)

    (seen,) = world.open(10)

    assert isinstance(seen, Observed)
    assert seen.pid_ns is None
    assert sorted(world.source.problems()) == [
        "cannot read /proc as it should be: exe: Permission denied",
        "cannot read /proc as it should be: ns/pid: Permission denied",
    ]
    # Where the program is not known, a title is what has a space in it.
    world.add(10, 1, argv=("airflow worker -- a",))
    assert kinds(world.later()) == [("title", 10)]
    world.add(10, 1, argv=("bash",))
    assert kinds(world.later(0.3)) == [("exec", 10)]


def test_where_there_is_no_proc_it_does_not_open(tmp_path: Path) -> None:
    source = ProcfsSource(root=tmp_path / "none")

    with pytest.raises(SourceUnavailable, match="mount -t proc"):
        source.open([1])


def test_migrations_are_not_to_be_had() -> None:
    with pytest.raises(SourceUnavailable, match="migrations"):
        ProcfsSource().open([1], migrations=True)


def test_an_interval_of_nothing_makes_no_sense() -> None:
    with pytest.raises(UsageError):
        ProcfsSource(0)


@pytest.mark.parametrize(
    ("life", "interval", "missed"),
    [(0.05, 0.1, 0.5), (0.2, 0.1, 0.0), (0.05, 1.0, 0.95), (0.0, 1.0, 1.0), (-1.0, 1.0, 1.0)],
)
def test_miss_rate_is_one_less_life_by_interval(
    life: float, interval: float, missed: float
) -> None:
    assert miss_rate(life, interval) == pytest.approx(missed)


def test_expected_miss_is_told_in_words() -> None:
    """What the header says is computed from the interval."""
    assert expected_miss(0.1).startswith(
        "/proc is read every 0.1 s and misses 90 % of those that live 10 ms, "
        "50 % of those that live 50 ms"
    )
    assert "next to none" in expected_miss(0.005)
    assert ProcfsSource(2.5).fidelity.expected_miss == expected_miss(2.5)


def test_numbers_of_records_have_no_holes(world: World) -> None:
    world.add(10, 1)
    events = world.open(10)
    world.add(11, 10)
    events += world.later()
    world.remove(11)
    events += world.later()

    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@given(content=st.binary(max_size=300))
def test_any_bytes_in_stat_are_a_process_or_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """The reader is total."""
    root = tmp_path_factory.mktemp("proc")
    (root / "7").mkdir()
    (root / "7" / "stat").write_bytes(content)
    (root / "7" / "status").write_bytes(content)
    (root / "7" / "cgroup").write_bytes(content)
    reader = ProcDirectory(root)

    stat = reader.stat(7)

    assert stat is None or isinstance(stat.start_ticks, int)
    reader.ns_pids(7)
    reader.cgroup(7)
    shutil.rmtree(root)
