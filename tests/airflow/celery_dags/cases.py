"""
The cases that are played with CeleryExecutor, one DAG each, for Airflow 2.x and 3.x alike.

A task that something is done to holds until the driver releases it: no case
depends on how fast the machine is.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.providers.standard.sensors.python import PythonSensor
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.x has them in its core
    from airflow import DAG
    from airflow.operators.bash import BashOperator
    from airflow.operators.python import PythonOperator
    from airflow.sensors.python import PythonSensor

from demo.witness import read_notes, write_note

SECOND = dt.timedelta(seconds=1)
POKES = 2
# Longer than the five seconds that a 3.3.2 supervisor may collect its runner late.
POKE_INTERVAL_S = 12
# Ends a task whose driver was killed.
HELD_AT_MOST_S = 300


def dag(name: str) -> DAG:
    """Return a DAG that runs only when it is told to."""
    return DAG(
        f"celery_{name}",
        schedule=None,
        start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


def hold(**context: Any) -> None:
    """Stay until the driver lets this DAG's tasks go."""
    write_note(context, "begin")
    released = Path(os.environ["PIDTRAIL_NOTES"]) / f"{context['ti'].dag_id}.go"
    until = time.monotonic() + HELD_AT_MOST_S
    while not released.exists() and time.monotonic() < until:
        time.sleep(0.05)
    write_note(context, "end")


def hold_first(**context: Any) -> None:
    """Stay on the first try, to be ended; end at once on the second."""
    if context["ti"].try_number == 1:
        hold(**context)
    else:
        write_note(context, "begin")


def note(*_: object, **context: Any) -> None:
    """Only note which process this is."""
    write_note(context, "begin")


def fail_first(**context: Any) -> None:
    """Fail on the first try."""
    write_note(context, "begin")
    if context["ti"].try_number == 1:
        raise RuntimeError("the first try fails, as it should")


def poke(**context: Any) -> bool:
    """Say yes on the second poke: each poke is a process of its own with a note of its own."""
    write_note(context, "begin")
    mine = [
        one
        for one in read_notes(Path(os.environ["PIDTRAIL_NOTES"]))
        if one.dag_id == context["ti"].dag_id
    ]
    return len(mine) >= POKES


class NotingBash(BashOperator):
    """
    BashOperator that notes the process that runs it.

    Its `on_kill` ends bash, so that a SIGTERM of the worker ends the task also in
    3.x, where user code that does not ask for the signal goes on.
    """

    def execute(self, context: Any) -> Any:
        """Note this process, then run bash."""
        write_note(context, "begin")
        return super().execute(context)


with dag("plain"):
    PythonOperator(task_id="t", python_callable=note)

with dag("retry"):
    PythonOperator(task_id="t", python_callable=fail_first, retries=1, retry_delay=SECOND)

with dag("reschedule"):
    PythonSensor(
        task_id="t", python_callable=poke, mode="reschedule", poke_interval=POKE_INTERVAL_S
    )

with dag("mapped"):
    PythonOperator.partial(task_id="t", python_callable=note).expand(op_args=[[1], [2], [3]])

with dag("kill_runner"):
    PythonOperator(task_id="t", python_callable=hold_first, retries=1, retry_delay=SECOND)

for name in ("kill_pool", "redelivered", "adopted"):
    with dag(name):
        PythonOperator(task_id="t", python_callable=hold)

with dag("restart"):
    NotingBash(
        task_id="t",
        bash_command="test {{ ti.try_number }} = 2 || exec sleep 300",
        queue="restarted",
        retries=1,
        retry_delay=SECOND,
    )

with dag("kill_worker"):
    PythonOperator(task_id="t", python_callable=hold, queue="killed")
