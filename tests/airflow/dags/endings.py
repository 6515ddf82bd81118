"""
The ways in which a task's process ends, one DAG each, and the children that it may have.

Who is ended from outside waits for that; the driver (`tests.airflow.endings`) does it.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import getpass
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.python import (
        ExternalPythonOperator,
        PythonOperator,
        PythonVirtualenvOperator,
    )
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.x has them in its core
    from airflow import DAG
    from airflow.operators.python import (
        ExternalPythonOperator,
        PythonOperator,
        PythonVirtualenvOperator,
    )

from demo.witness import FOLDER_VARIABLE, write_note
from tests.airflow import venv_tools

# 2.x starts the task of another user, or of one named at all, as `airflow` by its PATH.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

HOME = Path(os.environ[FOLDER_VARIABLE]).parent
WAIT_S = 100
# A runner of 3.x calls `on_kill` at SIGTERM and goes on (sdk task_runner.py run @ 1.3.2).
BESIDE_SIGTERM_S = 8
BESIDE_HEARTBEATS_S = 12
HOG = 256 << 20
# Of a dump: its headers and notes, and no memory (core(5), "Controlling which mappings ...").
SMALL_CORE = "0"
# Neither a file nor a pipe to a program; with 0 there would be a pipe (fs/coredump.c @ 6.18).
NO_CORE = 1
PR_SET_DUMPABLE = 4

venv_tools.use(HOME)

if "--raw" in sys.argv and "case_unrecorded" in sys.argv:
    # The runner of 2.x that is a program of its own reads this file before it writes its pid.
    (HOME / "unrecorded").write_text(str(os.getpid()))
    time.sleep(WAIT_S)


def dag(name: str, **options: Any) -> DAG:
    """Return a DAG that runs only when it is told to."""
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return DAG(f"case_{name}", schedule=None, start_date=start, **options)


def wait(seconds: float = WAIT_S, **context: Any) -> None:
    """Wait on the first try to be ended; end at once on the second."""
    write_note(context, "begin")
    if context["ti"].try_number == 1:
        time.sleep(seconds)


def ending_by(end: Callable[[], Any]) -> Callable[..., None]:
    """Return the task that ends itself in this way."""

    def callable_(**context: Any) -> None:
        write_note(context, "begin")
        end()

    return callable_


def fault() -> None:
    """
    Read from address 0.

    Both versions leave a handler for SIGSEGV behind when they have read a DAG file
    (models/dagbag.py @ 2.11.2, dag_processing/importers/python_importer.py @ 3.3.2).
    With it the instruction is done again and again, and the process never ends.
    """
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def allow_core(size: int = resource.RLIM_INFINITY) -> None:
    """Have a core file of at most so many bytes written into a folder of the stage, if at all."""
    folder = HOME / "cores"
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    Path("/proc/self/coredump_filter").write_text(SMALL_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (size, resource.RLIM_INFINITY))


def become_dumpable() -> None:
    """
    Undo what a supervisor of 3.2 and newer does before it forks.

    What is forked below it never dumps core else
    (sdk execution_time/supervisor.py _make_process_nondumpable @ 1.3.2).
    """
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def abort(size: int) -> None:
    """End by SIGABRT, with a limit of so many bytes for the core file."""
    allow_core(size)
    become_dumpable()
    os.abort()


def crashing_child(sig: int, size: int, *, as_forked: bool = False) -> list[int]:
    """Have a child that a signal ends; return its pid and its wait status."""
    child = os.fork()
    if child == 0:
        allow_core(size)
        if not as_forked:
            become_dumpable()
        signal.signal(sig, signal.SIG_DFL)
        os.kill(os.getpid(), sig)
        os._exit(1)
    return list(os.waitpid(child, 0))


def have_crashing_children(**context: Any) -> None:
    """Have children that crash, with and without a dump; write down how the kernel says so."""
    write_note(context, "begin")
    told = {
        "segv": crashing_child(signal.SIGSEGV, resource.RLIM_INFINITY),
        "abort": crashing_child(signal.SIGABRT, resource.RLIM_INFINITY),
        "limited": crashing_child(signal.SIGABRT, NO_CORE),
        "as_forked": crashing_child(signal.SIGABRT, resource.RLIM_INFINITY, as_forked=True),
    }
    (HOME / "crashes.json").write_text(json.dumps(told))


def fail() -> None:
    """Fail as tasks do."""
    raise RuntimeError("it fails, as it should")


def take_too_much() -> None:
    """Move into the cgroup that the driver has made, and use more memory than it has."""
    cgroup = Path((HOME / "memory-cgroup").read_text())
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    hog = bytearray(HOG)
    hog[::4096] = bytes(len(hog[::4096]))


def killed_by_child() -> None:
    """Let a shell below the task end the task's process."""
    subprocess.run(["/bin/sh", "-c", "kill -9 $PPID; sleep 5"], check=False)


for name, end in {
    "segfault": fault,
    "abort": partial(abort, NO_CORE),
    "core": partial(abort, resource.RLIM_INFINITY),
    "os_exit": lambda: os._exit(3),
    "sys_exit": lambda: sys.exit(3),
    "exception": fail,
    "self_kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "child_kill": killed_by_child,
    "oom": take_too_much,
}.items():
    with dag(name):
        PythonOperator(task_id="t", python_callable=ending_by(end))


def outlive(**context: Any) -> None:
    """Stay for a good while after the signal has come."""
    write_note(context, "begin")
    until = time.monotonic() + WAIT_S
    while not (HOME / "group-killed").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(BESIDE_SIGTERM_S)


def be_another(**context: Any) -> None:
    """Stay for some heartbeats after the row got the pid of another process."""
    write_note(context, "begin")
    until = time.monotonic() + WAIT_S
    while not (HOME / "rows-written").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(BESIDE_HEARTBEATS_S)


with dag("group_kill"):
    PythonOperator(task_id="t", python_callable=outlive)

for name in ("row_pid", "row_parent"):
    with dag(name):
        # 2.x warns and lets it run on.
        PythonOperator(task_id="t", python_callable=be_another)

for name in ("shell_kill", "set_state", "cleared", "refused"):
    with dag(name):
        # 2.x waits so long before it runs again what was cleared while it ran.
        PythonOperator(task_id="t", python_callable=wait, retry_delay=dt.timedelta(seconds=1))


def fail_when_told(**context: Any) -> None:
    """Fail on the first try, when it is told to."""
    write_note(context, "begin")
    until = time.monotonic() + WAIT_S
    while context["ti"].try_number == 1:
        if (HOME / "between").exists() or time.monotonic() > until:
            raise RuntimeError("the first try fails, as it should")
        time.sleep(0.05)


with dag("between"):
    PythonOperator(
        task_id="t",
        python_callable=fail_when_told,
        retries=1,
        retry_delay=dt.timedelta(seconds=1),
    )

with dag("execution_timeout"):
    PythonOperator(task_id="t", python_callable=wait, execution_timeout=dt.timedelta(seconds=2))

with dag("dagrun_timeout", dagrun_timeout=dt.timedelta(seconds=25)):
    PythonOperator(task_id="t", python_callable=wait)

with dag("unrecorded"):
    PythonOperator(task_id="t", python_callable=wait, run_as_user=getpass.getuser())


def start_ticks(pid: int) -> int:
    """Return field 22 of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def nap(context: Any) -> None:
    """Be a process of multiprocessing."""
    write_note(context, "multiprocessing")
    time.sleep(1)


def multiprocess(context: Any) -> str | None:
    """Start a child that has the title of the task; return why not, if it may not be."""
    child = multiprocessing.get_context("fork").Process(target=nap, args=(context,))
    try:
        child.start()
    except AssertionError as refusal:
        return str(refusal)
    child.join()
    return None


def daemonize(context: Any, seconds: float) -> None:
    """Fork twice; the grandchild outlives the task by some seconds."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        write_note(context, "daemon")
        # 3.x waits for all who hold the sockets between supervisor and runner.
        os.closerange(0, 256)
        time.sleep(seconds)
    os._exit(0)


def have_children(**context: Any) -> None:
    """Have a child of each kind, and a thread; write down who they are."""
    write_note(context, "begin")
    with subprocess.Popen(["/bin/sleep", "1"]) as popen:
        told: dict[str, Any] = {"popen": (popen.pid, start_ticks(popen.pid))}
        thread = threading.Thread(target=lambda: told.update(thread=threading.get_native_id()))
        thread.start()
        thread.join()
        told["refusal"] = multiprocess(context)
        daemonize(context, 8)
    (HOME / "children.json").write_text(json.dumps(told))
    write_note(context, "end")


def elsewhere() -> list[int]:
    """Run in another interpreter; return who that is, and its parent."""
    import os
    import time

    time.sleep(1)
    return [os.getpid(), os.getppid()]


class NotingExternalPython(ExternalPythonOperator):
    """ExternalPythonOperator that notes the process that runs it."""

    def execute(self, context: Any) -> Any:
        """Note this process, start the other, and write down who that was."""
        write_note(context, "begin")
        told = super().execute(context)
        (HOME / "external.json").write_text(json.dumps(told))
        return told


class NotingVirtualenv(PythonVirtualenvOperator):
    """PythonVirtualenvOperator that notes the process that runs it."""

    def execute(self, context: Any) -> Any:
        """Note this process, make the environment, and write down who ran in it."""
        write_note(context, "begin")
        told = super().execute(context)
        (HOME / "virtualenv.json").write_text(json.dumps(told))
        return told


with dag("children"):
    PythonOperator(task_id="t", python_callable=have_children)

with dag("external_python"):
    NotingExternalPython(
        task_id="t", python=sys.executable, python_callable=elsewhere, expect_airflow=False
    )

with dag("virtualenv"):
    # pip is there already: it, or uv, looks, and needs no network.
    NotingVirtualenv(task_id="t", python_callable=elsewhere, requirements=["pip"])

with dag("crashing_children"):
    PythonOperator(task_id="t", python_callable=have_crashing_children)
