"""
What tasks do that end when they are told to, for Airflow 2.x and 3.x alike.

Who plays decides which try may end when, so that no case depends on how fast a machine is.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.x has it in its core
    from airflow import DAG

from demo.witness import FOLDER_VARIABLE, write_note

# Longer than any play: who is not let go by then ends the task, not the test.
AT_MOST_S = 150


def dag(name: str) -> DAG:
    """Return a DAG that runs only when it is told to."""
    return DAG(
        f"case_{name}",
        schedule=None,
        start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


def wait_for(name: str) -> None:
    """Stay until a file of this name is in the folder of the notes."""
    until = time.monotonic() + AT_MOST_S
    while not (Path(os.environ[FOLDER_VARIABLE]) / name).exists() and time.monotonic() < until:
        time.sleep(0.05)


def hold(**context: Any) -> None:
    """Stay until this try of the task is let go."""
    write_note(context, "begin")
    wait_for(f"{context['ti'].dag_id}-{context['ti'].try_number}.go")
    write_note(context, "end")
