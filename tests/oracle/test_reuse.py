"""
Numbers that come again: everything happens in a PID namespace with few of them.

pidtrail runs in there too, so the numbers that it sees are those that are reused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.story import own_pid_max

ROOT = Path(__file__).resolve().parents[2]
INSIDE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(120)]


def run_inside(*command: str, pid_max: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a PID namespace of its own, perhaps with few numbers."""
    few = f"echo {pid_max} >/proc/sys/kernel/pid_max && " if pid_max is not None else ""
    # The shell stays: who is the namespace's init lives apart from what is tested.
    script = f'{few}"$@"; exit $?'
    return subprocess.run(
        [*INSIDE, "sh", "-c", script, "sh", sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.skipif(not own_pid_max(), reason="pid_max is the host's before Linux 6.14")
@pytest.mark.parametrize(
    ("source", "pid_max"),
    [
        ("core", 400),
        ("core", 500),
        pytest.param("bcc", 450, marks=pytest.mark.needs_bcc),
        pytest.param("bcc-perf", 450, marks=pytest.mark.needs_bcc),
    ],
)
def test_numbers_that_wrap_many_times_belong_to_whom_they_should(source: str, pid_max: int) -> None:
    """
    Thousands of processes share a hundred or two numbers; the books know each by its start.

    After the first round numbers begin at 300 again (kernel/pid.c RESERVED_PIDS). The other
    sources work in the first PID namespace only, whose numbers are everybody's: they meet a
    number that comes again in tests/contract, where a program gives one number to many.
    """
    done = run_inside("tests.oracle", "--source", source, "--count", "100", pid_max=pid_max)

    assert done.returncode == 0, done.stdout + done.stderr
    lives = re.search(r"(\d+) lives of one number", done.stdout)
    assert lives is not None
    assert int(lives[1]) >= 5


def test_trace_in_a_container_says_which_namespace_its_numbers_belong_to() -> None:
    """The header has the namespace's inode, and the records the numbers that are seen in there."""
    script = "readlink /proc/self/ns/pid; echo $$"
    done = run_inside("pidtrail", "trace", "--source", "core", "--format", "jsonl", "--",
                      "sh", "-c", script)  # fmt: skip

    assert done.returncode == 0, done.stderr
    header, *records = map(json.loads, done.stdout.splitlines())
    inode = re.search(r"pid:\[(\d+)\]", done.stderr)
    assert inode is not None
    assert header["pid_ns"] == int(inode[1]) != Path("/proc/self/ns/pid").stat().st_ino
    shell = int(done.stderr.splitlines()[done.stderr.splitlines().index(inode[0]) + 1])
    assert {record["pid"] for record in records if record["type"] == "exec"} >= {shell}
    births = [record for record in records if record["type"] == "fork"]
    assert births
    assert {record["pid_ns"] for record in births} == {header["pid_ns"]}
    assert all(record["ns_pids"][-1] == record["pid"] for record in births)


def test_connector_says_why_it_does_not_work_in_a_container() -> None:
    """One line, and status 1; `auto` takes another source and keeps the reason."""
    done = run_inside(
        "pidtrail", "trace", "--source", "connector", "--format", "none", "--", "true"
    )

    assert done.returncode == 1
    assert "initial PID namespace" in done.stderr
