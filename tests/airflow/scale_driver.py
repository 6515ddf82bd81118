"""
Plays five hundred mapped task instances on Airflow 3.3.2, sixteen at a time.

    python -m tests.airflow.scale_driver HOME

Status 0 when the run ended in success and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo.airflow3 import Airflow3
from demo.environment import InstallError, install, say
from demo.processes import Ledger, StageError, stop_on_signals

DAGS = Path(__file__).with_name("dags_scale")
DAG_ID, RUN_ID = "case_scale", "test"
PARALLELISM = 16
WITHIN_S = 420


def play(host: Airflow3) -> None:
    """Run it; raises `StageError` if it does not end in success."""
    host.start()
    host.wait_for_dags({DAG_ID})
    host.trigger(DAG_ID, RUN_ID)
    state = host.wait_for_end(DAG_ID, RUN_ID, within_s=WITHIN_S)
    if state != "success":
        raise StageError(f"the run ended in {state}")


def main(home: Path) -> int:
    """Play, stop everything; status as the module says."""
    stop_on_signals()
    try:
        release = install("3.3.2")
        home.mkdir(parents=True)
        ledger = Ledger(home)
        try:
            play(Airflow3(release, ledger, DAGS, parallelism=PARALLELISM))
        finally:
            ledger.stop_all()
    except (StageError, InstallError) as error:
        say(f"Airflow at scale: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
