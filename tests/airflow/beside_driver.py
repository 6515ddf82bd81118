"""
Plays ordinary task runs on an Airflow that may have another one beside it.

    python -m tests.airflow.beside_driver VERSION HOME RESULT

Everything has the names that the other one has too. Once it could begin, the driver waits for the
file `go` beside HOME. RESULT (JSON) has the pid of the scheduler, and the notes of the tasks. See
`performance` for the rest.
"""

from __future__ import annotations

import sys
from typing import Any

from demo.airflow3 import Airflow3
from demo.environment import Release
from demo.processes import Ledger, StageError, wait_until
from tests.airflow.performance import perform
from tests.airflow.versions_driver import DAGS, RUN_ID

CASES = ("bash", "retry")


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, Any]:
    """Run all cases at once when told to; raises `StageError` if one does not end in success."""
    del port
    host = Airflow3(release, ledger, DAGS, parallelism=2)
    host.start()
    host.wait_for_dags({f"case_{case}" for case in CASES})
    wait_until((host.home.parent / "go").exists, within_s=120, what="the word to go")
    for case in CASES:
        host.trigger(f"case_{case}", RUN_ID)
    for case in CASES:
        state = host.wait_for_end(f"case_{case}", RUN_ID, within_s=120)
        if state != "success":
            raise StageError(f"case {case} ended in {state}")
    notes = {f"{note.dag_id} {note.try_number}": note.pid for note in host.notes()}
    return {"scheduler": host.scheduler.pid, "ran": notes}


if __name__ == "__main__":
    sys.exit(perform(on_stage))
