"""Five hundred mapped task instances of a moment each: what `test_scale` traces."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from demo.witness import write_note
from tests.airflow.dags_scale import COUNT


def moment(number: int, **context: Any) -> None:
    """Note which process this is, and stay for a fifth of a second."""
    write_note(context, "begin")
    time.sleep(0.2)
    assert context["ti"].map_index == number


with DAG(
    "case_scale",
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    max_active_tasks=16,
):
    PythonOperator.partial(task_id="t", python_callable=moment).expand(
        op_args=[[number] for number in range(COUNT)]
    )
