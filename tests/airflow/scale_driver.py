"""
Plays five hundred mapped task instances on Airflow 3.x, sixteen at a time.

    python -m tests.airflow.scale_driver VERSION HOME RESULT PORT

PORT is PostgreSQL's. Status 0 when the run ended in success and nothing was left running,
else 1 and one line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo.airflow_host import AirflowHost
from demo.environment import Release
from demo.processes import Ledger, StageError
from tests.airflow.performance import perform
from tests.airflow.postgres3 import Airflow3OnPostgres

DAGS = Path(__file__).with_name("dags_scale")
DAG_ID, RUN_ID = "case_scale", "test"
PARALLELISM = 16
WITHIN_S = 300


def play(host: AirflowHost) -> None:
    """Run it; raises `StageError` if it does not end in success."""
    host.start()
    host.wait_for_dags({DAG_ID})
    host.trigger(DAG_ID, RUN_ID)
    state = host.wait_for_end(DAG_ID, RUN_ID, within_s=WITHIN_S)
    if state != "success":
        raise StageError(f"the run ended in {state}")


def on_stage(release: Release, ledger: Ledger, port: int | None) -> None:
    """Play on a release."""
    assert port is not None
    play(Airflow3OnPostgres(release, ledger, DAGS, port=port, parallelism=PARALLELISM))


if __name__ == "__main__":
    sys.exit(perform(on_stage))
