"""(c) A task that runs while the scheduler is killed and started again."""

from __future__ import annotations

import datetime as dt
import time

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from demo.witness import write_note

_SECONDS = 28


def keep_running(**context: object) -> None:
    """Note which process this is, wait 28 s, note it again."""
    write_note(context, "begin")
    time.sleep(_SECONDS)
    write_note(context, "end")


with DAG("pidtrail_restart", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)):
    PythonOperator(
        task_id="waits",
        python_callable=keep_running,
        # If the restart should end the task, a second process shows it.
        retries=1,
        retry_delay=dt.timedelta(seconds=1),
    )
