"""What is read of one process, from a /proc of our own making in which anything may stand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pidtrail.events import ProcessKey
from pidtrail.sources import proc

PID = 42
FILES = ("stat", "status", "comm", "cmdline", "cgroup", "environ")
READERS: list[Callable[[int], object]] = [
    proc.stat_fields, proc.start_ticks, proc.ppid, proc.comm, proc.ns_pids,
    proc.argv, proc.cgroup, proc.context_env, proc.open_paths,
]  # fmt: skip
REST = "1 42 42 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 3 0 777 1000 10"
NUMBER = st.sampled_from([b"", b"7", b"-1", b"x", "²".encode(), b"18446744073709551616", b"1 2"])
LINE = st.tuples(
    st.sampled_from([b"NSpid:", b"Threads:", b"0::", b"1:name=x:", b"42 (a) S", b")"]), NUMBER
).map(b"\t".join)
CONTENT = st.one_of(st.binary(max_size=200), st.lists(LINE, max_size=4).map(b"\n".join))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of process 42."""
    monkeypatch.setattr(proc, "PROC", tmp_path)
    made = tmp_path / str(PID)
    (made / "fd").mkdir(parents=True)
    return made


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("reader", READERS)
def test_a_process_that_is_not_there_is_none(reader: Callable[[int], object]) -> None:
    """Gone before, or gone between two reads: an empty directory, or none."""
    assert reader(PID) in (None, [])
    assert reader(PID + 1) is None


@pytest.mark.parametrize("reader", READERS)
def test_empty_files_are_unknown(folder: Path, reader: Callable[[int], object]) -> None:
    """A zombie's cmdline and environ are empty; nothing else may be made of it."""
    for name in FILES:
        (folder / name).write_bytes(b"")

    assert reader(PID) in (None, [])


@pytest.mark.parametrize("reader", READERS)
def test_files_that_may_not_be_read_are_unknown(
    folder: Path, reader: Callable[[int], object]
) -> None:
    """A directory in the place of a file: open works and read fails, as with ESRCH."""
    for name in FILES:
        (folder / name).mkdir()

    assert reader(PID) in (None, [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_any_bytes_give_an_answer(folder: Path, content: bytes) -> None:
    """Every reader is total: a value of its kind, or None."""
    for name in FILES:
        (folder / name).write_bytes(content)
    for reader in READERS:
        reader(PID)
    for numbers in (proc.start_ticks(PID), proc.ppid(PID)):
        assert numbers is None or numbers >= 0
    assert proc.children_of_all().keys() <= {proc.ppid(PID)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(comm=st.binary(max_size=15).map(lambda raw: raw.replace(b"\0", b"")))
def test_a_name_of_any_bytes_hides_nothing(folder: Path, comm: bytes) -> None:
    """Spaces, newlines and parentheses in a name do not move the fields after it."""
    (folder / "stat").write_bytes(b"42 (" + comm + b") S " + REST.encode())
    (folder / "comm").write_bytes(comm + b"\n")

    assert (proc.ppid(PID), proc.start_ticks(PID)) == (1, 777)
    assert proc.comm(PID) == comm.rstrip(b"\n").decode("utf-8", "replace")


def test_a_whole_process(folder: Path) -> None:
    """What a real one looks like."""
    (folder / "status").write_text("Name:\tx\nNSpid:\t42\t7\t1\nThreads:\t3\n")
    (folder / "cmdline").write_bytes(b"airflow\0scheduler\0")
    (folder / "cgroup").write_text("1:name=systemd:/a\n0::/b\n")
    (folder / "environ").write_bytes(b"HOME=/\0AIRFLOW_CTX_DAG_ID=d\0SECRET=x\0")
    (folder / "fd" / "3").symlink_to("/var/log/x")
    (folder / "fd" / "x").symlink_to("/nothing")

    assert proc.ns_pids(PID) == [42, 7, 1]
    assert proc.argv(PID) == ["airflow", "scheduler"]
    assert proc.cgroup(PID) == "/b"
    assert proc.context_env(PID) == {"AIRFLOW_CTX_DAG_ID": "d"}
    assert proc.open_paths(PID) == ["/var/log/x"]


def test_this_very_process() -> None:
    """The real /proc agrees with what the kernel tells us directly."""
    me = os.getpid()

    assert proc.ppid(me) == os.getppid()
    assert (proc.ns_pids(me) or [])[-1:] == [me]
    assert me in proc.children_of_all()[os.getppid()]


def test_of_several_processes_those_at_the_top_are_named() -> None:
    """Who is below another of them, who is gone, and who has the number of one is left out."""
    with subprocess.Popen(["sleep", "60"]) as child, subprocess.Popen(["true"]) as gone:
        gone.wait()
        here, below = (ProcessKey(pid, proc.start_ticks(pid)) for pid in (os.getpid(), child.pid))
        stranger = ProcessKey(os.getppid(), 1)

        assert proc.tops([below, here, stranger, ProcessKey(gone.pid, 1)]) == [os.getpid()]
        assert proc.tops([below, ProcessKey(os.getpid(), None)]) == [child.pid]
        child.kill()
