"""(a) A task that fails once: Airflow starts it again two seconds later."""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from demo.witness import write_note


def fail_once(**context: object) -> None:
    """Note which process this is; fail on the first try."""
    write_note(context, "begin")
    write_note(context, "end")
    if context["ti"].try_number == 1:  # type: ignore[attr-defined]
        message = "the first try fails, as it should"
        raise RuntimeError(message)


with DAG("pidtrail_retry", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)):
    PythonOperator(
        task_id="fails",
        python_callable=fail_once,
        retries=1,
        retry_delay=dt.timedelta(seconds=2),
    )
