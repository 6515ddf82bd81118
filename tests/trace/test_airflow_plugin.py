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
TELL = f"""
import json, os, socket, time
time.sleep(1)  # /proc is read from time to time: be seen
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for _ in range(TIMES):
    out.sendto(json.dumps({CLAIM!r}).encode(), os.environ["PIDTRAIL_CLAIMS"])
time.sleep(1)
"""


def trace(path: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Trace a Python program from /proc, which needs no privileges; events on stdout."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("PIDTRAIL_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pidtrail", "trace", "--source", "procfs", *options),
            *("--format", "jsonl", "--airflow-plugin", str(path)),
            *("--", sys.executable, "-c", code),
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
    done = trace(path, TELL.replace("TIMES", "1"))

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
    done = trace(tmp_path / "claims.sock", TELL.replace("TIMES", "20_000"))
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
