"""A task of another user where a script stands in for sudo, as in images that have none."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

try:
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.x has them in its core
    from airflow import DAG
    from airflow.operators.python import PythonOperator

from demo.witness import FOLDER_VARIABLE, write_note

SCRIPTS = Path(os.environ[FOLDER_VARIABLE]).parent / "scripts"
# It stays, and so does what Airflow has recorded; behind -E -H -u USER is what it is to run.
SCRIPT = '#!/bin/sh\nshift 4\n"$@"\nexit $?\n'

SCRIPTS.mkdir(exist_ok=True)
written = SCRIPTS / f"sudo.{os.getpid()}"
written.write_text(SCRIPT)
written.chmod(0o755)
written.replace(SCRIPTS / "sudo")
os.environ["PATH"] = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])


def stay(**context: Any) -> None:
    """Stay for a while."""
    write_note(context, "begin")
    time.sleep(2)


with DAG("case_scripted_sudo", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)):
    PythonOperator(task_id="t", python_callable=stay, run_as_user="daemon")
