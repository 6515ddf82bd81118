"""A DAG that the scheduler knows, and that its tasks' supervisors cannot load."""

from __future__ import annotations

from pathlib import Path

try:
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:  # Airflow 2.x has it in its core
    from airflow.operators.python import PythonOperator

from tests.airflow.holding import dag

if b"airflow task supervisor" in Path("/proc/self/cmdline").read_bytes():
    raise RuntimeError("this file cannot be loaded here")

with dag("unloaded"):
    PythonOperator(task_id="t", python_callable=print)
