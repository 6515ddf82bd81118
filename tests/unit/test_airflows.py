"""The Airflows of one host: whose database is read, and for how long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pidtrail.airflow.account import Account
from pidtrail.airflow.facts import Role
from pidtrail.airflow.running import Running
from pidtrail.cli.airflows import NEEDED_SECONDS, Airflows
from pidtrail.events import AirflowFact, Event, Observed, ProcessKey
from pidtrail.runtime import Session
from tests.kept import Kept
from tests.unit.test_runtime import Scripted


class Noting(Account):
    """An account that only notes what it is to read."""

    def __init__(self) -> None:
        super().__init__({})
        self.urls: set[str] = set()

    def read(self, urls: Collection[str]) -> None:
        """Note it."""
        self.urls = set(urls)


class Found:
    """A finder that finds what it is given, once."""

    def __init__(self) -> None:
        self.next: list[Running] = []

    def look(self, _followed: Collection[int]) -> list[Running]:
        """Find it."""
        found, self.next = self.next, []
        return found


class Host:
    """Processes with settings of Airflow in their environment, and who follows them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.account, self.finder, self.source, self.kept = Noting(), Found(), Scripted(), Kept()
        self.now_s = 0.0
        self.airflows = Airflows(self.account, self.finder, lambda: self.now_s)  # type: ignore[arg-type]
        self.session = Session(self.source, [self.kept], [self.account])

    def process(self, url: str | None) -> int:
        """Start a process that has a database in its environment."""
        given = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url} if url is not None else {}
        process = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); import signal; signal.pause()"],
            env=given | {"AIRFLOW_HOME": str(self.folder / "none")},
            stdout=subprocess.PIPE,
        )
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    def appears(self, pid: int, role: Role = Role.SCHEDULER) -> None:
        """Let a root be found, and look."""
        self.finder.next = [Running(pid, 1, role, "airflow")]
        self.airflows.look(self.session)

    def ends(self, pid: int) -> None:
        """Let a root end, and look."""
        self.session.live.discard(ProcessKey(pid, pid))
        self.source.there.remove(pid)
        self.airflows.look(self.session)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Return a host without Airflow."""
    with ExitStack() as stack:
        yield Host(stack, tmp_path)


def observed(events: list[Event]) -> list[int | None]:
    """Return who was shown."""
    return [event.pid for event in events if isinstance(event, Observed)]


def test_two_airflows_have_two_databases(host: Host) -> None:
    """Each is followed, each database is read once, and shown without its password."""
    one, two = "sqlite:////srv/one.db", "postgresql+psycopg2://airflow:secret@db/two"
    for url in (one, two, one):
        host.appears(host.process(url))

    assert host.account.urls == {one, two}
    assert len(host.airflows.roots) == 3
    assert set(observed(host.kept.events)) == set(host.airflows.roots)
    assert host.airflows.databases is not None
    assert "secret" not in host.airflows.databases
    assert host.airflows.databases.count(", ") == 1
    assert host.airflows.problem is None


def installations(events: list[Event]) -> dict[int | None, str | None]:
    """Return what was told of roots."""
    return {
        event.pid: event.airflow
        for event in events
        if isinstance(event, AirflowFact) and event.table == "installation"
    }


def test_it_is_told_to_which_installation_a_root_belongs(host: Host) -> None:
    """By its settings, after it was shown; null where they do not tell; others tell nothing."""
    one = host.process("postgresql://u:secret@db/one")
    same = host.process("postgresql+psycopg2://v@db:5432/one")
    unknown, runner = host.process(None), host.process("postgresql://db/two")
    for pid in (one, same, unknown):
        host.appears(pid)
    host.appears(runner, Role.RUNNER)

    address = "postgresql://db/one"
    assert installations(host.kept.events) == {one: address, same: address, unknown: None}
    shown = [type(event).__name__ for event in host.kept.events if event.pid == one]
    assert shown[:2] == ["Observed", "AirflowFact"]


def test_one_database_under_two_names_is_read_once(host: Host) -> None:
    """As it is named last: that may be with a new password."""
    for url in (
        "postgresql+psycopg2://u:old@localhost/a",
        "postgresql+psycopg2://u:new@127.0.0.1/a",
    ):
        host.appears(host.process(url))
    host.now_s += NEEDED_SECONDS
    host.airflows.look(host.session)

    assert host.account.urls == {"postgresql+psycopg2://u:new@127.0.0.1/a"}


def test_a_database_is_read_on_while_its_airflow_is_restarted(host: Host) -> None:
    """And let go when nobody came back for it."""
    url = "sqlite:////srv/one.db"
    pid = host.process(url)
    host.appears(pid)
    host.ends(pid)
    assert host.airflows.roots == {}
    host.now_s = NEEDED_SECONDS - 1
    host.airflows.look(host.session)
    assert host.account.urls == {url}
    host.now_s += 2
    host.airflows.look(host.session)
    assert host.account.urls == set()
    host.appears(host.process(url))
    assert host.account.urls == {url}


def test_why_a_database_is_not_known_is_told(host: Host) -> None:
    host.appears(host.process(None))

    assert host.account.urls == set()
    assert host.airflows.databases is None
    assert "no Airflow database found" in (host.airflows.problem or "")


def test_who_was_left_behind_is_followed_and_not_asked(host: Host) -> None:
    """Its title stands where its settings were; the scheduler's are known."""
    url = "sqlite:////srv/one.db"
    host.appears(host.process(url))
    left = host.process("sqlite:////srv/other.db")
    host.appears(left, Role.RUNNER)

    assert left in host.airflows.roots
    assert host.account.urls == {url}


def test_a_root_that_is_gone_before_it_is_followed_is_none(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = host.process(None)
    os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(host.source, "follow", lambda _roots: None)
    host.appears(pid)

    assert host.airflows.roots == {}
