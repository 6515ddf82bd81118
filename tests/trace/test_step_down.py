"""A source that is lost while it runs is replaced, and the session goes on: with the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from pidtrail.events import Exec, Lost
from pidtrail.runtime import Session
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.core import CoreSource
from pidtrail.sources.ladder import make
from pidtrail.sources.procfs import ProcfsSource
from pidtrail.sources.source import Source
from tests.kept import Kept

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]
PATIENCE_S = 20


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[str]]:
    """
    Return a shell that runs what it is told.

    It has answered once. Popen returns when execve closes its pipe (fs/exec.c
    begin_new_exec), which is before the connector tells of that exec (proc_exec_connector).
    """
    process = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    tell(process, "echo here")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    yield process
    process.kill()
    process.communicate()


def opens(name: str) -> Callable[[str, object], Source]:
    """Return a way down that leads to one source."""

    def step_down(_failed: str, pids: object) -> Source:
        assert isinstance(pids, list)
        source = make(name)
        source.open(pids)
        return source

    return step_down


def turn_until(session: Session, condition: Callable[[], bool]) -> None:
    """Turn the loop until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        session.turn()
        time.sleep(0.02)


def tell(shell: subprocess.Popen[str], command: str) -> None:
    """Have the shell run something."""
    assert shell.stdin is not None
    shell.stdin.write(f"{command}\n")
    shell.stdin.flush()


def execs(kept: Kept) -> list[str | None]:
    """Return which sources told of programs that were started."""
    return [event.origin for event in kept.events if isinstance(event, Exec)]


def steps_down(kept: Kept) -> list[Lost]:
    """Return the losses of changing sources; a busy host may add others of its own."""
    losses = [event for event in kept.events if isinstance(event, Lost)]
    return [lost for lost in losses if "went on with" in (lost.reason or "")]


def test_programs_that_are_detached_are_noticed(shell: subprocess.Popen[str]) -> None:
    """Without its links `core` would be silent for ever; it says so, and the connector goes on."""
    source = CoreSource()
    source.open([shell.pid])
    kept = Kept()
    session = Session(source, [kept], (), opens("connector"))
    session.start()
    tell(shell, "/bin/true")
    turn_until(session, lambda: execs(kept) == ["core"])

    so = source.objects[0].so
    for link in source.objects[0].links:
        os.close(so.bpf_link__fd(link))
    turn_until(session, lambda: session.source.name == "connector")
    tell(shell, "/bin/true")
    turn_until(session, lambda: execs(kept) == ["core", "connector"])
    session.finish()

    (lost,) = steps_down(kept)
    assert lost.count is None
    assert "detached" in (lost.reason or "")
    numbers = [event.seq for event in kept.events]
    assert numbers == sorted(set(numbers))


def test_a_closed_netlink_socket_is_survived(shell: subprocess.Popen[str]) -> None:
    """The connector's socket is gone; polling goes on from who is alive."""
    source = ConnectorSource()
    source.open([shell.pid])
    kept = Kept()
    session = Session(source, [kept], (), opens("procfs"))
    session.start()
    tell(shell, "/bin/true")
    turn_until(session, lambda: execs(kept) == ["connector"])

    assert source.socket is not None
    source.socket.close()
    turn_until(session, lambda: isinstance(session.source, ProcfsSource))
    tell(shell, "exec sleep 30")
    turn_until(session, lambda: execs(kept) == ["connector", "procfs"])
    session.finish()

    assert [lost.count for lost in steps_down(kept)] == [None]


@pytest.mark.parametrize(
    "name", ["core", pytest.param("bcc", marks=pytest.mark.needs_bcc), "connector", "procfs"]
)
def test_rights_that_are_dropped_end_nothing(name: str, shell: subprocess.Popen[str]) -> None:
    """
    Without root and any capability the session goes on, with this source or, told, a lower one.

    What was opened stays open, and newer kernels ask for rights only then. Two seconds and a
    half are enough for every look that is taken now and then.
    """
    command = [sys.executable, "-m", "tests.trace.dropping", name, str(shell.pid)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        said = map(json.loads, agent.stdout)
        assert next(said) == {"attached": name}
        agent.stdin.write("drop\n")
        assert next(line for line in said if "holds" in line) == {"holds": []}
        time.sleep(2.5)
        tell(shell, "exec sleep 30")
        lost: list[str] = []
        for line in said:
            if "exec" in line:
                break
            lost.append(line["lost"])
        agent.stdin.close()
        assert next(line for line in said if "ended" in line) == {"ended": line["exec"]}
    assert agent.returncode == 0
    stepped = [reason for reason in lost if "went on with" in reason]
    assert (line["exec"] == name) == (stepped == [])
