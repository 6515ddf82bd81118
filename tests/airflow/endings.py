"""
The driver's part in the endings: who ends the processes of `dags/endings.py` from outside.

Each acts as a person does: in a shell, or on Airflow's rows through its API.
"""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from demo.airflow_host import AirflowHost
from demo.processes import Identity, StageError, identity_of, is_alive, wait_until
from pidtrail.events import TaskReported
from pidtrail.store import Recording
from tests.airflow.glance import glance
from tests.airflow.memory_cgroup import memory_cgroup

RUN_ID: Final = "test"
MEMORY: Final = 48 << 20
FOREIGN_PID: Final = 99_999
"""Beyond pid_max of the hosts where this runs, as nobody else may have it."""
ALONE: Final = (
    *("segfault", "abort", "os_exit", "sys_exit", "exception", "self_kill", "child_kill"),
    *("oom", "execution_timeout", "dagrun_timeout", "children", "external_python"),
    *("core", "crashing_children", "virtualenv"),
)
"""These end by themselves."""
ENDED: Final = ("shell_kill", "group_kill", "row_pid", "set_state", "cleared")
ONLY: Final = {"2": ("unrecorded", "row_parent"), "3": ("refused", "between", "scripted_sudo")}
"""
2.x writes the pid late, 3.x asks whether it may start when the process is there already.

A supervisor of 3.x can be held up before it forks.
"""
EARLY: Final = "dagrun_timeout"
"""Begun alone: its run has a limit, within which it must have a process."""
LATE: Final = ("between", "scripted_sudo")
"""Begun by `look_late`: only so many tasks run at once, and these need not."""


def cases(major: str) -> tuple[str, ...]:
    """Return the cases of a major version, in the order in which they are begun."""
    return (
        EARLY,
        *ENDED,
        *ONLY[major],
        *(one for one in ALONE if one != EARLY),
    )


class Endings:
    """Ends what `cases` have begun; `done` tells who was ended by whom."""

    def __init__(self, host: AirflowHost, major: str) -> None:
        self.host = host
        self.major = major
        self.done: dict[str, Any] = {}

    @contextmanager
    def stage(self) -> Iterator[None]:
        """Prepare what must be there before the cases begin, and remove it afterwards."""
        with memory_cgroup(MEMORY) as cgroup:
            (self.host.home / "memory-cgroup").write_text(str(cgroup))
            if self.major == "3":
                for log in (self.log_of("refused", 1), self.log_of("between", 2)):
                    log.parent.mkdir(parents=True)
                    os.mkfifo(log)
            yield

    def log_of(self, case: str, try_number: int) -> Path:
        """
        Return the log of a try that is held up before it has a process: a FIFO.

        A 3.x supervisor opens it before it forks (sdk execution_time/supervisor.py
        supervise_task @ 1.3.2) and waits until somebody reads.
        """
        parts = f"dag_id=case_{case}/run_id={RUN_ID}/task_id=t/attempt={try_number}.log"
        return self.host.home / "logs" / parts

    def let_start(self, case: str, try_number: int) -> None:
        """Read what a try that is held up has to say, until it has ended."""
        log = self.log_of(case, try_number)
        if not stat.S_ISFIFO(log.stat().st_mode):
            raise StageError(f"the log of case_{case} is no FIFO any more")
        threading.Thread(target=log.read_bytes, daemon=True).start()

    def end_all(self) -> None:
        """End who waits for it, each as soon as it runs."""
        host = self.host
        self.shell("shell_kill", "kill -9 {pid}")
        self.shell("group_kill", "kill -TERM -{pgid}")
        (host.home / "group-killed").touch()
        for case in ("row_pid", "set_state", "cleared"):
            self.runner(case)
        host.set_pid("case_row_pid", RUN_ID, "t", FOREIGN_PID)
        host.set_state("case_set_state", RUN_ID, "t", "failed")
        host.clear("case_cleared", RUN_ID)
        if self.major == "3":
            self.refuse()
        else:
            below = self.runner("row_parent")
            host.set_pid("case_row_parent", RUN_ID, "t", parent_of(below.pid))
        (host.home / "rows-written").touch()
        if self.major == "2":
            self.kill_unrecorded()

    def runner(self, case: str) -> Identity:
        """Return the process of a case when its user code runs."""
        return Identity(*self.host.wait_for_note(f"case_{case}", within_s=90)[0].identity)

    def shell(self, case: str, command: str, runner: Identity | None = None) -> None:
        """Let a shell run a command about the process of a case."""
        runner = runner or self.runner(case)
        line = command.format(pid=runner.pid, pgid=os.getpgid(runner.pid))
        # A second command, so that the shell does not make way for the first.
        with subprocess.Popen(["/bin/sh", "-c", f"{line}; exit $?"]) as shell:
            killer = identity_of(shell.pid)
        if shell.returncode:
            raise StageError(f"{line}: status {shell.returncode}")
        self.done[case] = {"victim": runner, "killer": killer or (shell.pid, None)}

    def refuse(self) -> None:
        """Set the state of a task by hand between its being queued and its start."""

        def waits() -> bool:
            rows = self.host.task_states("case_refused", RUN_ID)
            return [row.state for row in rows] == ["queued"]

        wait_until(waits, within_s=60, what="the queueing of case_refused")
        self.host.set_state("case_refused", RUN_ID, "t", "failed")
        self.let_start("refused", 1)

    def kill_unrecorded(self) -> None:
        """SIGKILL a runner of 2.x that has not written its pid, which a second trace sees."""
        file = self.host.home / "unrecorded"
        wait_until(file.exists, within_s=60, what="the runner of case_unrecorded")
        runner = wait_until(
            lambda: identity_of(int(file.read_text() or 0)), within_s=5, what="its number"
        )
        assert runner is not None  # it was waited for
        with self.glance("unwritten"):
            # At its end it waits for the database for some seconds only.
            has_row = partial(is_reported, self.host.home / "unwritten.db", "case_unrecorded")
            wait_until(has_row, within_s=60, what="the row of case_unrecorded in the recording")
        self.shell("unrecorded", "kill -9 {pid}", runner)

    def glance(self, name: str) -> AbstractContextManager[None]:
        """Trace the scheduler a second time, from the beginning of a block to its end."""
        database = ("--airflow-db", self.host.database)
        return glance(self.host.home / f"{name}.db", self.host.scheduler.pid, *database)

    def look_late(self) -> None:
        """
        Trace 3.x from late on until a second try is queued.

        By then a task whose row says that it runs has neither supervisor nor process.
        """

        def is_queued() -> bool:
            rows = self.host.task_states("case_between", RUN_ID)
            return [(row.try_number, row.state) for row in rows] == [(2, "queued")]

        for case in LATE:
            self.host.trigger(f"case_{case}", RUN_ID)
        with self.glance("late"):
            self.runner("between")
            (self.host.home / "between").touch()
            wait_until(is_queued, within_s=60, what="the second try of case_between")
        self.let_start("between", 2)

    def wait_for_ends(self) -> dict[str, str]:
        """Return how the run of each case ended; all have, then."""
        states = {
            case: self.host.wait_for_end(f"case_{case}", RUN_ID, within_s=100)
            for case in cases(self.major)
        }
        # A run may have ended before its process has, and daemons outlive it.
        mine = {f"case_{case}" for case in cases(self.major)}
        noted = [Identity(*one.identity) for one in self.host.notes() if one.dag_id in mine]
        wait_until(
            lambda: not any(map(is_alive, noted)), within_s=30, what="the end of all processes"
        )
        return states


def is_reported(recording: Path, dag_id: str) -> bool:
    """Return whether Airflow's row of a task of a DAG is in a recording, which may be in use."""
    kept = Recording(recording)
    try:
        return any(
            isinstance(event, TaskReported) and event.task is not None
            and event.task.dag_id == dag_id for event in kept.events()
        )  # fmt: skip
    finally:
        kept.close()


def parent_of(pid: int) -> int:
    """Return the pid of the parent of a living process."""
    stat_line = Path(f"/proc/{pid}/stat").read_text()
    return int(stat_line.rpartition(")")[2].split()[1])
