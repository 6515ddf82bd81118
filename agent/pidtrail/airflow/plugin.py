"""
An Airflow listener that tells pidtrail's agent which process runs which task attempt.

Runs in Airflow's environment, never in pidtrail's: Airflow 2.7 or newer, Python 3.8 or
newer, nothing but the standard library beside Airflow itself. Active through the entry
point `airflow.plugins` of an installed pidtrail, or as a single file, a copy of this
one, in $AIRFLOW_HOME/plugins.

Rule 1: it fails no task. What goes wrong here is swallowed, and nobody is told.
Rule 2: it slows no task. One datagram that is not waited for: no answer, no lock, no
        log, no retry. Where nobody listens, or too many speak, it is lost.
Rule 3: it says what it knows of its own process. The agent believes the kernel's word
        on who sent it (SCM_CREDENTIALS, unix(7)), not this one's.

The hooks are called in the process that runs the user code (models/taskinstance.py
_execute_task_with_callbacks @ 2.11.2, sdk execution_time/task_runner.py _prepare @ 1.3.2).
The ends are told elsewhere too, by the scheduler that fails a task, and in 3.x by the
api-server when somebody sets a state by hand: here only by who told the beginning.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from pluggy import HookimplMarker

SCHEMA = "pidtrail.claim/1"
SOCKET = "/run/pidtrail/claims.sock"
SOCKET_VARIABLE = "PIDTRAIL_CLAIMS"
MAX_BYTES = 8192
"""Room for three names of 250 characters (airflow/models/base.py ID_LEN) and the rest."""
INSTANCE = ("dag_id", "task_id", "run_id", "map_index")

hookimpl = HookimplMarker("airflow")


class Listener:
    """
    Tells of the beginning and the end of what this process runs.

    `begun` is what was told of the beginning. A process that is forked later has it
    too, with a pid that is not its own.
    """

    def __init__(self) -> None:
        self.begun: dict[str, Any] = {}

    @hookimpl
    def on_task_instance_running(self, task_instance: Any) -> None:
        """Tell that this process begins an attempt, or goes on with it."""
        self.tell("running", task_instance)

    @hookimpl
    def on_task_instance_success(self, task_instance: Any) -> None:
        """Tell that it succeeded."""
        self.tell("success", task_instance)

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any) -> None:
        """Tell that it failed; `state` is None where Airflow has not decided on a retry yet."""
        self.tell("failed", task_instance)

    @hookimpl
    def on_task_instance_skipped(self, task_instance: Any) -> None:
        """Tell that it was skipped (3.1 and newer)."""
        self.tell("skipped", task_instance)

    def tell(self, event: str, task_instance: Any) -> None:
        """Send one datagram, if this is for this process to tell; see the rules above."""
        try:
            if event == "running":
                self.begun = beginning(task_instance)
            elif not self.is_mine(task_instance):
                return
            state = state_of(task_instance) if event == "failed" else event
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            send({**self.begun, "event": event, "state": state, "boot_ns": now_ns})
        except Exception as error:
            # Up to 2.7 SIGTERM ends a task by an AirflowException, which its handler raises
            # wherever the task is then; in newer ones it is no Exception.
            if type(error).__module__.partition(".")[0] == "airflow":
                raise

    def is_mine(self, task_instance: Any) -> bool:
        """Return whether this very process told that it runs this task instance."""
        begun = self.begun
        return begun.get("pid") == os.getpid() and all(
            begun[name] == getattr(task_instance, name) for name in INSTANCE
        )


def beginning(task_instance: Any) -> dict[str, Any]:
    """Return which process this is, and what it runs."""
    ti_id = getattr(task_instance, "id", None)
    claim = {name: getattr(task_instance, name) for name in INSTANCE}
    claim.update(
        schema=SCHEMA,
        try_number=task_instance.try_number,
        ti_id=None if ti_id is None else str(ti_id),
        hostname=getattr(task_instance, "hostname", None),
        pid=os.getpid(),
        start_ticks=start_ticks(),
        pid_ns=pid_namespace(),
    )
    return claim


def state_of(task_instance: Any) -> str | None:
    """Return what became of a failed attempt, None where it was not decided yet (2.7 to 2.9)."""
    state = getattr(task_instance, "state", None)
    text = str(getattr(state, "value", state))
    return text if text in ("failed", "up_for_retry") else None


def start_ticks() -> int | None:
    """Return when this process started, in USER_HZ ticks since boot; None without /proc."""
    try:
        # comm may hold spaces and parentheses: fields count from the last one (proc(5)).
        return int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return None


def pid_namespace() -> int | None:
    """Return the inode of this process's PID namespace; None without /proc."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def send(claim: dict[str, Any]) -> None:
    """Send a claim to whoever listens. Raises OSError and whatever json does."""
    data = json.dumps(claim, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        # Also where gevent has put its own sockets in place of these: it waits on any other.
        out.settimeout(0)
        out.sendto(data, os.environ.get(SOCKET_VARIABLE) or SOCKET)


class PidtrailPlugin(AirflowPlugin):  # type: ignore[misc]
    """What Airflow loads."""

    name = "pidtrail"
    listeners = (Listener(),)
