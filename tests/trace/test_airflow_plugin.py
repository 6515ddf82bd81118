"""`pidtrail trace --airflow-plugin` as a user meets it, and as a process that lies meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pidtrail.airflow.claims import BURST, MOST_PER_SECOND

CLAIM = {
    "schema": "pidtrail.claim/1",
    "event": "running",
    "state": "running",
    "dag_id": "sales",
    "task_id": "load",
    "run_id": "manual__1",
    "map_index": -1,
    "try_number": 1,
    "pid": 1,
    "start_ticks": 5,
    "boot_ns": 0,
}


def tell(times: int = 1, **more: str) -> str:
    """Return a program that claims something so many times; `more` are fields as expressions."""
    fields = "".join(f"claim[{name!r}] = {value}\n" for name, value in more.items())
    return f"""
import json, os, socket, time
time.sleep(1)  # /proc is read from time to time: be seen
claim = {CLAIM!r}
{fields}
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for _ in range({times}):
    out.sendto(json.dumps(claim).encode(), os.environ["PIDTRAIL_CLAIMS"])
time.sleep(1)
"""


def trace(path: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Trace a Python program from /proc, which needs no privileges; events on stdout."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("PIDTRAIL_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pidtrail", "trace", "--source", "procfs"),
            *("--format", "jsonl", "--airflow-plugin", str(path)),
            *("--", sys.executable, "-c", code, *arguments),
        ],
        env=own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def claims(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return what came through the plugin's socket."""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [event for event in events if event["type"] == "task_reported"]


def test_the_command_finds_the_socket_and_its_claim_is_in_the_stream(tmp_path: Path) -> None:
    """The path reaches the command by itself; who claims to be process 1 is recorded as himself."""
    path = tmp_path / "claims.sock"
    done = trace(path, tell())

    (claim,) = claims(done)
    header = json.loads(done.stdout.splitlines()[0])
    root = header["roots"][0]
    assert done.returncode == 0, done.stderr
    assert header["airflow_plugin"] == str(path)
    assert (claim["pid"], claim["start_ticks"]) == (root["pid"], root["start_ticks"])
    assert (claim["via"], claim["task"]["dag_id"]) == ("plugin", "sales")
    assert "sales.load" in done.stderr  # the verdicts at the end know the attempt
    assert not path.exists()


def test_a_flood_is_bounded_in_the_stream_and_said_at_the_end(tmp_path: Path) -> None:
    """The session goes on, keeps what it allows itself, and counts the rest to the last one."""
    began = time.monotonic()
    done = trace(tmp_path / "claims.sock", tell(20_000))
    took_s = time.monotonic() - began

    kept = len(claims(done))
    dropped = re.search(r"([0-9]+) messages to the plugin's socket were dropped", done.stderr)
    assert done.returncode == 0, done.stderr
    assert BURST <= kept <= BURST + took_s * MOST_PER_SECOND
    assert dropped is not None
    assert kept + int(dropped[1]) == 20_000


def test_where_it_cannot_listen_the_command_is_not_started(tmp_path: Path) -> None:
    """One line says why; status 1."""
    done = trace(tmp_path / "no" / "folder", "import sys; print('started', file=sys.stderr)")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No such file or directory" in done.stderr


@pytest.mark.needs_root
def test_a_process_of_another_pid_namespace_is_known_by_its_number_here(tmp_path: Path) -> None:
    """In a container a task is process 1 or so; the kernel says which one that is outside."""
    inside = tell(pid="os.getpid()", pid_ns="os.stat('/proc/self/ns/pid').st_ino")
    outside = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
    unshare = ("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", inside)
    done = trace(tmp_path / "claims.sock", outside, *unshare)

    (claim,) = claims(done)
    events = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    (numbers,) = {
        tuple(event["ns_pids"])
        for event in events
        if event["pid"] == claim["pid"] and event.get("ns_pids")
    }
    assert numbers[0] == claim["pid"]
    assert numbers[-1] == 1
    assert claim["pid"] != 1
    assert "named another process" not in done.stderr
