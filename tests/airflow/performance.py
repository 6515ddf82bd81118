"""
The main of a driver: what all of them do around the play itself.

    python -m MODULE VERSION HOME RESULT [PORT]

PORT is PostgreSQL's, where one is used. RESULT (JSON) is what the play returns. Status 0 when
all was played and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from demo.environment import InstallError, Release, provide, say
from demo.processes import Ledger, StageError, stop_on_signals
from tests.airflow.releases import NEWEST, OLDER


def perform(play: Callable[[Release, Ledger, int | None], object]) -> int:
    """Play on the release that the command line names; stop everything, write the result."""
    version, home, result, *port = sys.argv[1:]
    release = (NEWEST | OLDER)[version]
    stop_on_signals()
    try:
        provide(release)
        folder = Path(home).resolve()
        folder.mkdir(parents=True)
        ledger = Ledger(folder)
        try:
            done = play(release, ledger, int(port[0]) if port else None)
        finally:
            ledger.stop_all()
    except (StageError, InstallError) as error:
        say(f"Airflow {version}: {error}")
        return 1
    Path(result).write_text(json.dumps(done, indent=1))
    return 0
