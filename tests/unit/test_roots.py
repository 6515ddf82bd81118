"""Whom the service finds, and how little it looks at for it."""

from __future__ import annotations

from pathlib import Path

from pidtrail.airflow.facts import Role
from pidtrail.airflow.running import Running
from pidtrail.roots import AGES_NS, ALL_EVERY_NS, LOOK_EVERY_NS, Roots

SECOND = 1_000_000_000


class Host:
    """A host whose processes the test makes: who shows Airflow's words, and how much is asked."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.airflow: set[int] = set()
        self.looked: list[int] = []
        self.searched = 0
        self.now_ns = 100 * SECOND
        self.roots = Roots(proc, self.find, self.shows, lambda: self.now_ns)

    def start(self, *pids: int) -> None:
        """Let processes be there."""
        for pid in pids:
            (self.proc / str(pid)).mkdir()

    def end(self, pid: int) -> None:
        """Let a process be gone."""
        (self.proc / str(pid)).rmdir()

    def shows(self, pid: int) -> bool:
        """Tell what a command line says."""
        self.looked.append(pid)
        return pid in self.airflow

    def find(self) -> list[Running]:
        """Search for all roots."""
        self.searched += 1
        return [Running(pid, 1, Role.SCHEDULER, "airflow") for pid in sorted(self.airflow)]

    def look(self, followed: set[int] | None = None, seconds: float = 2) -> list[int]:
        """Let time pass, and look."""
        self.now_ns += int(seconds * SECOND)
        assert self.roots.is_due()
        return [process.pid for process in self.roots.look(followed or set())]


def test_who_runs_already_is_found_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.start(1, 2, 3)
    host.airflow = {3}

    assert host.look() == [3]
    assert not host.roots.is_due()


def test_who_comes_later_is_found_at_the_next_look(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.start(1)
    assert host.look() == []
    host.start(9)
    host.airflow = {9}

    assert host.look() == [9]


def test_who_takes_its_name_some_seconds_after_its_start_is_found(tmp_path: Path) -> None:
    """A process is Airflow by an exec, or a title, that comes after it was first seen."""
    host = Host(tmp_path)
    host.look()
    host.start(9)
    for _ in range(6):
        assert host.look() == []
    host.airflow = {9}

    assert 9 in {pid for _ in range(12) for pid in host.look()}


def test_who_becomes_airflow_after_a_long_time_is_found_within_a_minute(tmp_path: Path) -> None:
    """An entrypoint that waits for its database, and then execs."""
    host = Host(tmp_path)
    host.start(9)
    for _ in range(150):
        assert host.look() == []
    host.airflow = {9}

    looks = next(n for n in range(1, 100) if host.look())
    assert looks * LOOK_EVERY_NS <= ALL_EVERY_NS


def test_who_is_followed_already_is_no_reason_to_search(tmp_path: Path) -> None:
    """A busy Airflow forks all the time; nobody below it is looked at."""
    host = Host(tmp_path)
    host.start(1, 2)
    host.airflow = {2}
    assert host.look() == [2]
    host.looked.clear()
    for pid in range(10, 30):
        host.start(pid)
        host.airflow.add(pid)
        assert host.look({2, *range(10, 30)}) == []

    assert host.searched == 1
    assert set(host.looked) == {1}


def test_a_number_that_is_given_again_is_somebody_new(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.start(1, 5)
    host.look()
    for _ in range(40):
        host.look()
    # Another directory keeps the freed inode from being given to the new one.
    (tmp_path / "5").rename(tmp_path / "x")
    host.start(5)
    host.airflow = {5}

    assert host.look() == [5]


def test_processes_that_stay_cost_one_listing(tmp_path: Path) -> None:
    """Each is looked at six times when it is young, and then once a minute."""
    host = Host(tmp_path)
    host.start(*range(1, 101))
    host.look()
    for _ in range(600):
        host.look()

    assert len(host.looked) <= 100 * (len(AGES_NS) + 600 * LOOK_EVERY_NS // ALL_EVERY_NS + 1)
    assert host.searched == 0


def test_a_proc_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path / "none")

    assert host.look() == []
