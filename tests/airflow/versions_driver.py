"""
Plays ordinary task runs on any release of Airflow: what the matrix of versions traces.

    python -m tests.airflow.versions_driver VERSION HOME [PORT]

PORT is PostgreSQL's, for 2.x. Status 0 when all runs ended in success and
nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo.airflow2 import Airflow2
from demo.airflow3 import Airflow3
from demo.airflow_host import AirflowHost
from demo.environment import InstallError, provide, say
from demo.processes import Ledger, StageError, stop_on_signals
from tests.airflow.releases import OLDER

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


def main(version: str, home: Path, port: int | None) -> int:
    """Play, stop everything; status as the module says."""
    stop_on_signals()
    try:
        release = OLDER[version]
        provide(release)
        home.mkdir(parents=True)
        ledger = Ledger(home)
        host: AirflowHost
        if version.startswith("2."):
            host = Airflow2(release, ledger, DAGS, port=port)
        else:
            host = Airflow3(release, ledger, DAGS)
        try:
            play(host)
        finally:
            ledger.stop_all()
    except (StageError, InstallError) as error:
        say(f"Airflow {version}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    version, home, *port = sys.argv[1:]
    sys.exit(main(version, Path(home).resolve(), int(port[0]) if port else None))
