"""The agent's end of the plugin's socket: who is believed, and what too much of it does."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.airflow.claims import BURST, MAX_BYTES, MOST_PER_DRAIN, ClaimSocket, parse
from pidtrail.errors import PidtrailError
from pidtrail.events import TaskRef, TaskReported
from pidtrail.sources import proc
from tests.unit.plugin_file import Instance, load

TICK_S = 0.02
SEND = """
import socket, sys
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
out.sendto(sys.argv[2].encode(), sys.argv[1])
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[ClaimSocket]:
    """A socket that has been there for some ticks, so that this process is older."""
    made = ClaimSocket(str(tmp_path / "claims.sock"), proc.start_ticks)
    yield made
    made.stop()


def message(**fields: Any) -> dict[str, Any]:
    """Return what a task of this very process would tell."""
    return {
        "schema": "pidtrail.claim/1",
        "event": "running",
        "state": "running",
        "dag_id": "sales",
        "task_id": "load",
        "run_id": "manual__1",
        "map_index": -1,
        "try_number": 1,
        "pid": os.getpid(),
        "start_ticks": proc.start_ticks(os.getpid()),
        "pid_ns": Path("/proc/self/ns/pid").stat().st_ino,
        "boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    } | fields


def send(here: ClaimSocket, data: bytes | dict[str, Any], times: int = 1) -> None:
    """Send from this process."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for _ in range(times):
            out.sendto(raw, here.path)


def drained(here: ClaimSocket) -> list[TaskReported]:
    """Return what was told."""
    events = here.drain()
    assert all(isinstance(event, TaskReported) for event in events)
    return events  # type: ignore[return-value]


def test_what_the_plugin_tells_arrives(here: ClaimSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugin and agent, end to end: the attempt by all its names, and the exact process."""
    monkeypatch.setenv("PIDTRAIL_CLAIMS", here.path)
    listener = load().Listener()
    listener.on_task_instance_running(Instance(map_index=3))
    listener.on_task_instance_success(Instance(map_index=3))

    events = drained(here)

    ti_id = "01a201d9-c083-7000-8000-000000000001"
    assert [event.state for event in events] == ["running", "success"]
    for event in events:
        assert event.key == (os.getpid(), proc.start_ticks(os.getpid()), None)
        assert event.task == TaskRef("sales", "load", "manual__1", 3, 1, ti_id)
        assert (event.via, event.recorded_pid) == ("plugin", os.getpid())
    assert here.problems() == []


def test_the_kernel_says_who_sent_it(here: ClaimSocket) -> None:
    """Who claims to be another process is recorded as himself, and counted."""
    time.sleep(TICK_S)
    here.drain()
    send(here, message(pid=1, start_ticks=5))

    (event,) = drained(here)

    assert event.key == (os.getpid(), proc.start_ticks(os.getpid()), None)
    assert "1 messages of the plugin named another process" in here.problems()[0]


def test_a_number_of_another_namespace_is_no_lie(here: ClaimSocket) -> None:
    """A task in a container names itself by its number there."""
    send(here, message(pid=7, pid_ns=12))

    (event,) = drained(here)

    assert (event.pid, here.problems()) == (os.getpid(), [])


def test_who_is_gone_is_known_by_what_he_said(here: ClaimSocket) -> None:
    """The kernel has the number still; the start is the message's, for the tree to confirm."""
    claim = message(start_ticks=4242)
    sender = subprocess.Popen([sys.executable, "-c", SEND, here.path, json.dumps(claim)])
    assert sender.wait() == 0

    (event,) = drained(here)

    assert event.key == (sender.pid, 4242, None)


def test_who_has_the_number_of_the_dead_is_not_taken_for_him(tmp_path: Path) -> None:
    """A process that came after the socket was last empty may not be the one that sent."""
    there = {os.getpid(): 10**9}  # who has the number now, started in some months
    here = ClaimSocket(str(tmp_path / "claims.sock"), there.get)
    send(here, message())
    send(here, message(start_ticks=10**9))

    (event,) = drained(here)
    here.stop()

    assert event.start_ticks == 10**9
    assert "could not be told from others" in here.problems()[0]


def test_the_time_is_that_of_sending_where_it_can_be(here: ClaimSocket) -> None:
    """No claim is older than the last look into the empty socket, nor from the future."""
    here.drain()
    sent = message()
    now = sent["boot_ns"]
    for boot_ns in (now, 0, now + 10**15):
        send(here, {**sent, "boot_ns": boot_ns})

    times = [event.ts_boot_ns for event in drained(here)]

    assert times[0] == now
    assert all(now <= one <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) for one in times)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff" * 50,
        b"[" * 8000,
        json.dumps(message()).encode()[:-1],
        json.dumps(message(schema="pidtrail.claim/2")).encode(),
        json.dumps(message(pid="7")).encode(),
        json.dumps(message(map_index=-2)).encode(),
        json.dumps(message(dag_id="")).encode(),
        json.dumps(message(dag_id="x" * 251)).encode(),
        json.dumps(message(state="a new state")).encode(),
        json.dumps(message(newer="x" * MAX_BYTES)).encode(),
    ],
)
def test_what_is_not_understood_is_counted_and_no_more(here: ClaimSocket, data: bytes) -> None:
    """Also one that would be understood but for its length."""
    send(here, data)
    send(here, message())

    assert len(drained(here)) == 1
    assert here.problems() == ["1 messages to the plugin's socket were not understood"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_nothing(data: bytes) -> None:
    assert parse(data) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(message())), JSON, min_size=1))
def test_any_field_may_hold_anything(fields: dict[str, Any]) -> None:
    """A message that is understood has the names and numbers that Airflow can have."""
    understood = parse(json.dumps(message(**fields)).encode())

    if understood is not None:
        assert understood.dag_id
        assert understood.map_index >= -1
        assert understood.task.try_number != 0


def test_a_flood_is_bounded_and_counted(here: ClaimSocket) -> None:
    """So many are taken in, the rest is thrown away unread, and the loop is not woken for it."""
    flood = json.dumps(message()).encode()
    taken = sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.settimeout(0)
        while sent < 3 * MOST_PER_DRAIN:
            try:
                out.sendto(flood, here.path)
                sent += 1
            except BlockingIOError:
                taken += len(here.drain())
    taken += len(here.drain())

    (problem,) = here.problems()
    dropped = int(problem.split()[0])
    assert BURST <= taken < 2 * BURST
    assert taken + dropped == sent
    assert here.allowance < 1 + BURST / 10
    assert here.wake_fd() is None or here.allowance >= 1


def test_what_was_told_before_the_end_is_there_after_it(here: ClaimSocket) -> None:
    """The socket is gone at once; what it held is handed over once."""
    send(here, message())
    here.stop()

    assert len(drained(here)) == 1
    assert drained(here) == []
    assert not Path(here.path).exists()
    assert here.wake_fd() is None


def test_everybody_may_send_and_nobody_else_may_do_anything(here: ClaimSocket) -> None:
    """A task may run as any user, so any user may write; that is all it takes (unix(7))."""
    assert stat.S_IMODE(Path(here.path).stat().st_mode) == 0o622


def test_a_socket_left_by_the_dead_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "claims.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
        old.bind(path)
    here = ClaimSocket(path, proc.start_ticks)
    send(here, message())

    assert len(drained(here)) == 1
    here.stop()


def test_only_our_own_socket_is_taken_away(here: ClaimSocket) -> None:
    """Somebody put another one there: it stays."""
    Path(here.path).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(here.path)
        here.stop()

        assert Path(here.path).is_socket()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no/such/folder", "No such file or directory"),
        ("x" * 120, "AF_UNIX path too long"),
        ("file", "it is no socket"),
        ("taken", "another process does"),
    ],
)
def test_where_it_cannot_listen_it_says_why(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").write_text("kept")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "taken"))

        with pytest.raises(PidtrailError, match=why):
            ClaimSocket(str(tmp_path / name), proc.start_ticks)

    assert (tmp_path / "file").read_text() == "kept"
