"""Tasks of Airflow 2.x that end as they are told to, or do not, while somebody asks about them."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

try:
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:  # Airflow 2.x has it in its core
    from airflow.operators.python import PythonOperator

from tests.airflow.holding import dag, hold

# 2.x starts the task of another user, or of one named at all, as `airflow` by its PATH.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

with dag("own_user"):
    PythonOperator(task_id="t", python_callable=hold, run_as_user=getpass.getuser())

with dag("celery"):
    PythonOperator(task_id="t", python_callable=hold, executor="CeleryExecutor")

for case in ("killed", "unheard", "later"):
    with dag(case):
        PythonOperator(task_id="t", python_callable=hold)
