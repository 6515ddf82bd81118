"""Who has a number that a row goes on showing: asked of /proc when a recording ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from msgspec import structs

from pidtrail.events import Event, TaskReported
from pidtrail.runtime import Session
from pidtrail.sources import proc
from pidtrail.sources.holders import Holders
from tests.unit.story import ref
from tests.unit.test_runtime import Grown, Scripted


@pytest.fixture
def stranger() -> Iterator[int]:
    """Return the number of a process that nobody traces."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def row(pid: int, state: str, table: str = "task_instance") -> TaskReported:
    """Return what a row says."""
    return TaskReported(
        0, 1, "airflow-db", task=ref(), recorded_pid=pid, state=state, table=table, via="db"
    )


class Rows:
    """Airflow's claims: these rows, once."""

    def __init__(self, *rows: TaskReported) -> None:
        self.rows: list[Event] = [*rows]

    def drain(self) -> list[Event]:
        """Give them."""
        rows, self.rows = self.rows, []
        return rows

    def poke(self) -> None:
        """Nothing changes."""

    def problems(self) -> list[str]:
        """Nothing goes wrong."""
        return []

    def stop(self) -> None:
        """Nothing more comes."""


@pytest.mark.parametrize("state", ["running", "up_for_retry", "deferred", "up_for_reschedule"])
def test_the_holder_of_a_number_that_stands_is_recorded(stranger: int, state: str) -> None:
    """By name and start, and not by its arguments; once, under a number of the stream."""
    source, kept = Scripted(), Grown()
    session = Session(source, [kept], [Rows(row(stranger, state))])
    session.start()
    session.finish()

    (node,) = kept.tree.with_pid(stranger)
    (seen,) = node.observed
    assert (node.comm, node.argv) == ("sleep", None)
    assert (seen.start_ticks, seen.ppid) == (proc.start_ticks(stranger), os.getpid())
    numbers = [event.seq for event in kept.events]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_row_of_another_installation_is_another(stranger: int) -> None:
    """That a task is over in one Airflow says nothing of the same name in the other."""
    holders = Holders()
    holders.take([structs.replace(row(stranger, "running"), airflow="one")])
    holders.take([structs.replace(row(stranger, "success"), airflow="two")])

    assert [seen.pid for seen in holders.look(set(), 1)] == [stranger]


@pytest.mark.parametrize("state", ["success", "failed", "queued", "scheduled"])
def test_a_row_that_is_over_or_waits_asks_for_nobody(stranger: int, state: str) -> None:
    """Its number is history, or the next attempt's verdict is about it."""
    holders = Holders()
    holders.take([row(stranger, "running")])
    holders.take([row(stranger, state)])

    assert holders.look(set(), 1) == []


def test_a_history_row_is_no_news(stranger: int) -> None:
    """It tells of an earlier try, and the current row goes on standing."""
    holders = Holders()
    holders.take([row(stranger, "running")])
    holders.take([row(stranger, "failed", "task_instance_history")])

    assert [seen.pid for seen in holders.look(set(), 1)] == [stranger]


def test_who_is_traced_is_known_already(stranger: int) -> None:
    """The source tells of it, and more."""
    holders = Holders()
    holders.take([row(stranger, "running")])

    assert holders.look({stranger}, 1) == []


def test_a_number_that_nobody_has_is_nobodys() -> None:
    """Not even a dead process's that waits for its parent."""
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    holders = Holders()
    holders.take([row(dead.pid, "running")])

    assert holders.look(set(), 1) == []
    dead.wait()
    assert holders.look(set(), 1) == []
