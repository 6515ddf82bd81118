"""
The cases that are played in containers, one DAG each, for Airflow 3.x.

Each task notes which process it is where its user code runs: by its own numbers.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from demo.witness import write_note


def dag(name: str) -> DAG:
    """Return a DAG that runs only when it is told to."""
    return DAG(f"case_{name}", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def note(**context: Any) -> None:
    """Note this process."""
    write_note(context, "begin")


def fail_first(**context: Any) -> None:
    """Fail on the first try."""
    write_note(context, "begin")
    if context["ti"].try_number == 1:
        raise RuntimeError("the first try fails, as it should")


def stay(**context: Any) -> None:
    """Stay until somebody ends it."""
    write_note(context, "begin")
    time.sleep(300)


with dag("pod_1"):
    PythonOperator(task_id="t", python_callable=note, executor="pods", queue="node-1")

with dag("pod_2"):
    PythonOperator(task_id="t", python_callable=note, executor="pods", queue="node-2")

with dag("pod_retry"):
    PythonOperator(
        task_id="t",
        python_callable=fail_first,
        executor="pods",
        queue="node-1",
        retries=1,
        retry_delay=dt.timedelta(seconds=1),
    )

with dag("local"):
    PythonOperator(task_id="t", python_callable=note)

with dag("lost"):
    PythonOperator(task_id="t", python_callable=stay)
