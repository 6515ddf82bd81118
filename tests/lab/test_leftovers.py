"""What a killed lab leaves is swept by the next one, and nothing else is."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pidtrail.lab import leftovers
from pidtrail.lab.cgroup import found, owner_in
from pidtrail.lab.identity import state_of

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]

ROOT = Path(__file__).resolve().parents[2]
LAB = [sys.executable, "-m", "pidtrail", "lab"]
MARKED = leftovers.VARIABLE


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether a condition comes to hold."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Return whether a process has ended, collected or not."""
    return state_of(pid) in {None, "Z", "X"}


@contextlib.contextmanager
def held() -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A lab that has stopped and frozen children; killed in the end, if it still is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.hold"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()
        leftovers.sweep()


def of_owner(owner: str) -> list[str]:
    """Return all that bears the mark of one lab."""
    return [f"process {pid}" for pid, mark in leftovers.marked() if mark == owner] + [
        f"cgroup {path}" for path in found() if owner_in(path.name) == owner
    ]


def mark_of(process: subprocess.Popen[bytes]) -> str:
    """Return what the children and cgroups of a running lab are marked with."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return f"{namespace}-{process.pid}-{fields[19]}"


def test_a_killed_lab_is_cleaned_up_after() -> None:
    """Who waits goes by itself; who is stopped or frozen cannot, until the next lab starts."""
    with held() as (process, what):
        owner = owner_in(Path(what["cgroup"]).name)
        process.kill()
        process.wait()

        assert eventually(lambda: gone(what["waiting"]))
        assert state_of(what["stopped"]) == "T"
        assert not gone(what["frozen"])
        assert Path(what["cgroup"]).is_dir()

        done = subprocess.run([*LAB, "fork"], capture_output=True, text=True, check=False)

        assert done.returncode == 0, done.stderr
        assert f"process {what['stopped']}" in done.stderr
        assert eventually(lambda: gone(what["stopped"]) and gone(what["frozen"]))
        assert not Path(what["cgroup"]).exists()
        assert of_owner(owner) == []


def test_a_living_lab_is_left_alone() -> None:
    with held() as (process, what):
        subprocess.run([*LAB, "fork"], capture_output=True, check=True)

        assert state_of(what["stopped"]) == "T"
        assert not gone(what["frozen"])
        assert Path(what["cgroup"]).is_dir()

        process.communicate("")  # it reads to the end, and leaves by itself

        assert process.returncode == 0
        assert all(gone(what[name]) for name in ("stopped", "frozen", "waiting"))
        assert not Path(what["cgroup"]).exists()


@pytest.mark.parametrize("moment", [0.4, 0.8, 1.6, 2.4])
def test_killed_at_any_moment_nothing_is_left(moment: float) -> None:
    """However far it got: after the next sweep nothing bears its mark."""
    process = subprocess.Popen(LAB, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment + random.random() / 5)
    owner = mark_of(process)
    process.kill()
    process.wait()

    leftovers.sweep()

    assert eventually(lambda: of_owner(owner) == []), of_owner(owner)


def test_a_stranger_with_the_same_variable_is_left_alone() -> None:
    """Only a mark that names a lab of this PID namespace that is gone is swept."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    strangers = [
        subprocess.Popen(["sleep", "30"], env={**os.environ, MARKED: mark})
        for mark in ("1", "yes", f"{namespace + 1}-1-1", f"{namespace}-{os.getpid()}-x")
    ]
    try:
        leftovers.sweep()

        assert [stranger.poll() for stranger in strangers] == [None] * 4
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


def test_an_abandoned_mark_is_swept() -> None:
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    mark = f"{namespace}-{os.getpid()}-1"  # our number, at another time
    left = subprocess.Popen(["sleep", "30"], env={**os.environ, MARKED: mark})

    swept = leftovers.sweep()

    assert left.wait(10) == -signal.SIGKILL
    assert f"process {left.pid}" in swept


def test_an_interrupted_lab_leaves_nothing() -> None:
    """Ctrl-C ends it with 130, after it has cleaned up."""
    process = subprocess.Popen(LAB, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    owner = mark_of(process)
    assert eventually(lambda: of_owner(owner) != [])
    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 130
    assert [mark for _, mark in leftovers.marked() if f"-{process.pid}-" in mark] == []
    assert [path for path in found() if f"-{process.pid}-" in path.name] == []
