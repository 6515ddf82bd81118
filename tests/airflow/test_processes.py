"""The stage ends what it started, all of it, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import ROOT, processes
from demo.processes import (
    Identity,
    Ledger,
    clear_leftovers,
    identity_of,
    is_alive,
    listeners,
    send_signal,
    wait_until,
)

# The part itself, and a child in a session of its own.
PART = ["sh", "-c", "setsid sleep 90 & echo $! > child; exec sleep 90"]
DRIVER = """
import pathlib, sys, time
from demo import processes
processes.STATES = pathlib.Path(sys.argv[1])
home = pathlib.Path(sys.argv[2])
processes.Ledger(home).spawn("part", sys.argv[3:], {"PATH": "/usr/bin:/bin"})
time.sleep(90)
"""


@pytest.fixture(autouse=True)
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this test's stages apart from real ones."""
    monkeypatch.setattr(processes, "STATES", tmp_path / "states")
    return tmp_path / "states"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for one stage."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def driver(states: Path, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has started a part."""
    argv = [sys.executable, "-c", DRIVER, str(states), str(home), *PART]
    with subprocess.Popen(argv, cwd=ROOT) as process:
        yield process
        process.kill()


def child_of_part(home: Path) -> Identity:
    """The process that a part has started."""

    def started() -> Identity | None:
        written = home / "child"
        number = written.read_text() if written.exists() else ""
        return identity_of(int(number)) if number.strip() else None

    child = wait_until(started, within_s=20, what="the part's child")
    assert child is not None
    return child


def test_orphan_in_another_session_is_ended(home: Path) -> None:
    """A child outlives its parent and its session, and yet is found."""
    ledger = Ledger(home)
    part = ledger.spawn("part", PART, {"PATH": "/usr/bin:/bin"})
    orphan = child_of_part(home)
    ledger.forget(part)
    part.popen.kill()
    part.popen.wait()

    ledger.stop_all()

    assert not is_alive(orphan)


def test_next_stage_ends_what_a_killed_driver_left(
    driver: subprocess.Popen[bytes], home: Path, states: Path
) -> None:
    """A driver that was killed could stop nothing; its file tells what there is to stop."""
    left = child_of_part(home)
    driver.send_signal(signal.SIGKILL)
    driver.wait()

    clear_leftovers()

    assert not is_alive(left)
    assert not list(states.glob("*.json"))


def test_stage_of_a_living_driver_is_left_alone(
    driver: subprocess.Popen[bytes], home: Path, states: Path
) -> None:
    """Two stages at a time do not take each other for leftovers."""
    other = child_of_part(home)

    clear_leftovers()

    assert driver.poll() is None
    assert is_alive(other)
    assert list(states.glob("*.json"))
    driver.kill()
    driver.wait()
    clear_leftovers()


@pytest.mark.needs_root
def test_stage_in_another_pid_namespace_is_left_alone(
    driver: subprocess.Popen[bytes], home: Path, states: Path
) -> None:
    """Seen from in there its driver's number is nobody's, or somebody else's; it may live."""
    other = child_of_part(home)
    folder = home / "folder-of-it"
    folder.mkdir()
    (state,) = states.glob("*.json")

    def told_whole() -> dict[str, Any] | None:
        # It is written again when the part has begun.
        read = json.loads(state.read_text())
        return read if read["processes"] else None

    told = wait_until(told_whole, within_s=20, what="the driver's word on its part")
    assert told is not None
    state.write_text(json.dumps(told | {"folders": [*told["folders"], str(folder)]}))
    clear = "import sys, pathlib; from demo import processes"
    clear += "; processes.STATES = pathlib.Path(sys.argv[1]); processes.clear_leftovers()"
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable]

    subprocess.run([*inside, "-c", clear, str(states)], cwd=ROOT, check=True)

    assert folder.exists()
    assert is_alive(other)
    driver.kill()
    driver.wait()
    subprocess.run([*inside, "-c", clear, str(states)], cwd=ROOT, check=True)
    assert folder.exists()
    clear_leftovers()
    assert not folder.exists()
    assert not is_alive(other)


def test_number_given_to_another_process_is_not_signalled() -> None:
    """A process that has our number but another start time is a stranger."""
    me = identity_of(os.getpid())

    assert me is not None
    assert not send_signal(Identity(me.pid, me.start_ticks + 1), signal.SIGKILL)


def test_listener_is_known_by_its_process() -> None:
    """Who listens on a port is told by the socket, not believed from an answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]

        assert listeners(port) == set()
        listening.listen()
        assert listeners(port) == {os.getpid()}
