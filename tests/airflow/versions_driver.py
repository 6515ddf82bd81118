"""
Plays ordinary task runs on any release of Airflow: what the matrix of versions traces.

    python -m tests.airflow.versions_driver VERSION HOME RESULT [PORT]

All runs have to end in success; there is no more to tell (RESULT is null). See
`performance` for the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo.airflow2 import Airflow2
from demo.airflow3 import Airflow3
from demo.airflow_host import AirflowHost
from demo.environment import Release
from demo.processes import Ledger, StageError
from tests.airflow.performance import perform

DAGS = Path(__file__).with_name("dags")
CASES = ("bash", "mapped", "retry")
RUN_ID = "test"


def play(host: AirflowHost) -> None:
    """Run all cases at once; raises `StageError` if one does not end in success."""
    host.start()
    host.wait_for_dags({f"case_{case}" for case in CASES})
    for case in CASES:
        host.trigger(f"case_{case}", RUN_ID)
    for case in CASES:
        state = host.wait_for_end(f"case_{case}", RUN_ID, within_s=120)
        if state != "success":
            raise StageError(f"case {case} ended in {state}")


def on_stage(release: Release, ledger: Ledger, port: int | None) -> None:
    """Play all cases on a release."""
    if release.version.startswith("2."):
        play(Airflow2(release, ledger, DAGS, port=port))
    else:
        play(Airflow3(release, ledger, DAGS))


if __name__ == "__main__":
    sys.exit(perform(on_stage))
