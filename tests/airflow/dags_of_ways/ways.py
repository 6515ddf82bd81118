"""The DAGs that are run in the less usual ways, for Airflow 2.x and 3.x alike."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import getpass
import os
import termios
import time
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.x has them in its core
    from airflow import DAG
    from airflow.operators.python import PythonOperator

from demo.witness import write_note

SECOND = dt.timedelta(seconds=1)


def dag(name: str, *, paused: bool = False) -> DAG:
    """Return a DAG that runs only when it is told to; `paused` keeps the scheduler's hands off."""
    return DAG(
        f"way_{name}",
        schedule=None,
        start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        is_paused_upon_creation=paused,
    )


def run_for(seconds: float, **context: Any) -> None:
    """Stay for so long."""
    write_note(context, "begin")
    time.sleep(seconds)
    write_note(context, "end")


def fail_first(**context: Any) -> None:
    """Fail on the first try."""
    write_note(context, "begin")
    if context["ti"].try_number == 1:
        raise RuntimeError("the first try fails, as it should")


with dag("plain"):
    PythonOperator(task_id="t", python_callable=run_for, op_args=[2])

with dag("shell", paused=True):
    PythonOperator(task_id="t", python_callable=run_for, op_args=[2])

with dag("retry"):
    PythonOperator(task_id="t", python_callable=fail_first, retries=1, retry_delay=SECOND)

with dag("mapped"):
    PythonOperator.partial(task_id="t", python_callable=run_for).expand(op_args=[[1], [2]])

# Longer than a heartbeat, which is when 2.x compares the pids.
LONG = 8

with dag("own_user"):
    PythonOperator(
        task_id="t", python_callable=run_for, op_args=[LONG], run_as_user=getpass.getuser()
    )

# What sudo does for each of these users is in tests/airflow/sudoers.
for user in ("daemon", "nobody", "games"):
    with dag(f"sudo_{user}"):
        PythonOperator(task_id="t", python_callable=run_for, op_args=[LONG], run_as_user=user)

# sudo starts nothing as these users.
for name, user in {
    "no_rule": "news",
    "password": "mail",
    "no_user": "nobody-of-this-name",
    "no_command": "proxy",
}.items():
    with dag(name):
        PythonOperator(task_id="t", python_callable=run_for, op_args=[0], run_as_user=user)

if os.environ.get("_AIRFLOW_PARSING_CONTEXT_DAG_ID") == "way_password":
    # Where Airflow is a service there is none on which sudo could ask.
    with contextlib.suppress(OSError), Path("/dev/tty").open("rb", buffering=0) as terminal:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)

if "pods:" in os.environ.get("AIRFLOW__CORE__EXECUTOR", ""):
    # tests/airflow/pod_executor.py; the address is one of documentation (RFC 5737).
    pods: dict[str, dict[str, Any]] = {
        "pod": {},
        "pod_user": {"run_as_user": "nobody"},
        "pod_network": {"executor_config": {"address": "203.0.113.7"}},
    }
    for name, options in pods.items():
        with dag(name):
            PythonOperator(
                task_id="t",
                python_callable=run_for,
                op_args=[1],
                executor="pods",
                queue="node",
                **options,
            )
