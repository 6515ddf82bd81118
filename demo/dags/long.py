"""(b) A long-running task, moved between CPUs from outside while it runs."""

from __future__ import annotations

import datetime as dt
import time

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from demo.witness import write_note

_SECONDS = 25


def work(**context: object) -> None:
    """Note which process this is, use a little CPU time for 25 s, note it again."""
    write_note(context, "begin")
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        # Asleep, a process is not moved: it must wake to land on the CPU it is now allowed on.
        sum(range(2000))
        time.sleep(0.005)
    write_note(context, "end")


with DAG("pidtrail_long", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)):
    PythonOperator(task_id="work", python_callable=work)
