"""
The cases that the tests of pidtrail play, one DAG each, for Airflow 2.x and 3.x alike.

Each task notes which process it is (`demo.witness`) where its user code runs.
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import sys
import time
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.providers.standard.sensors.python import PythonSensor
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
    from airflow.sdk import DAG, BaseOperator
except ImportError:  # Airflow 2.x has them in its core
    from airflow import DAG
    from airflow.models import BaseOperator
    from airflow.operators.bash import BashOperator
    from airflow.operators.python import PythonOperator
    from airflow.sensors.python import PythonSensor
    from airflow.triggers.temporal import TimeDeltaTrigger

from demo.witness import read_notes, write_note

# 2.x starts the task of another user, or of one named at all, as `airflow` by its PATH.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

SECOND = dt.timedelta(seconds=1)
POKES = 3
# A 3.3.2 worker may collect its runner five seconds late, and then reports the poke
# before as ended while the next is queued, which fails the task (airflow#66374). The
# same with a deferral whose trigger fires then.
POKE_INTERVAL_S = 12
WAIT_S = 100
BESIDE_A_KILL_S = 10


def dag(name: str) -> DAG:
    """Return a DAG that runs only when it is told to."""
    return DAG(
        f"case_{name}",
        schedule=None,
        start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


def run_for(seconds: float, **context: Any) -> None:
    """Stay for so long, waking often enough to be moved between CPUs."""
    write_note(context, "begin")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.005)
    write_note(context, "end")


def fail_first(**context: Any) -> None:
    """Fail on the first try."""
    write_note(context, "begin")
    if context["ti"].try_number == 1:
        raise RuntimeError("the first try fails, as it should")


def wait_on_first(**context: Any) -> None:
    """Wait on the first try to be killed; end at once on the second."""
    run_for(60 if context["ti"].try_number == 1 else 0, **context)


def outlive_supervisor(**context: Any) -> None:
    """Stay for a good while after the supervisor was killed."""
    write_note(context, "begin")
    killed = Path(os.environ["PIDTRAIL_NOTES"]).parent / "supervisor-killed"
    until = time.monotonic() + WAIT_S
    while not killed.exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(BESIDE_A_KILL_S)
    write_note(context, "end")


def poke(**context: Any) -> bool:
    """Say yes on the third poke: each poke is a process of its own with a note of its own."""
    write_note(context, "begin")
    mine = [
        note
        for note in read_notes(Path(os.environ["PIDTRAIL_NOTES"]))
        if note.dag_id == context["ti"].dag_id
    ]
    return len(mine) >= POKES


class NotingBash(BashOperator):
    """BashOperator that notes the process that runs it: bash is its child."""

    def execute(self, context: Any) -> Any:
        """Note this process, then run bash."""
        write_note(context, "begin")
        return super().execute(context)


class Deferring(BaseOperator):
    """Ends its process and asks to be started again when a trigger fires."""

    def execute(self, context: Any) -> None:
        """Note the process that ends here."""
        write_note(context, "begin")
        self.defer(trigger=TimeDeltaTrigger(POKE_INTERVAL_S * SECOND), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> None:
        """Note the process that goes on."""
        write_note(context, "resume")


with dag("retry"):
    PythonOperator(task_id="t", python_callable=fail_first, retries=1, retry_delay=SECOND)

with dag("long"):
    PythonOperator(task_id="t", python_callable=run_for, op_args=[14])

with dag("own_user"):
    # Longer than a heartbeat: that is when 2.x compares the pids.
    PythonOperator(task_id="t", python_callable=run_for, op_args=[8], run_as_user=getpass.getuser())

with dag("bash"):
    NotingBash(task_id="t", bash_command="(echo one; sleep 1; echo two) | cat | wc -l")

with dag("reschedule"):
    PythonSensor(
        task_id="t", python_callable=poke, mode="reschedule", poke_interval=POKE_INTERVAL_S
    )

with dag("deferral"):
    Deferring(task_id="t")

with dag("mapped"):
    PythonOperator.partial(task_id="t", python_callable=run_for).expand(
        op_args=[[1], [2], [3], [4]]
    )

with dag("kill_runner"):
    PythonOperator(task_id="t", python_callable=wait_on_first, retries=1, retry_delay=SECOND)

with dag("kill_supervisor"):
    PythonOperator(task_id="t", python_callable=outlive_supervisor)

with dag("kill_scheduler"):
    PythonOperator(task_id="t", python_callable=run_for, op_args=[20])
