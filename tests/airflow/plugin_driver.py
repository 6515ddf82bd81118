"""
Plays some cases on one real Airflow with pidtrail's plugin: what `trace` watches in test_plugin.

    python -m tests.airflow.plugin_driver VERSION HOME SITE

SITE is a folder on Airflow's Python path. The socket is where PIDTRAIL_CLAIMS says, as for
Airflow. First all cases with an agent that listens there; then one task again and again,
while nobody does. HOME/states.json tells how each run ended. Status 0 when all was played.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.airflow2 import Airflow2
from demo.airflow3 import Airflow3
from demo.airflow_host import AirflowHost, free_ports
from demo.environment import InstallError, Release, provide, say
from demo.processes import Ledger, StageError, stop_on_signals
from tests.airflow.postgres3 import Airflow3OnPostgres
from tests.airflow.releases import NEWEST, OLDER
from tests.unit.plugin_file import fill

DAGS = Path(__file__).with_name("dags")
CASES = ("reschedule", "mapped", "retry", "bash")
HEARD = "heard"
PLAIN = "bash"


class Sited(AirflowHost):
    """An Airflow with one more folder on its Python path."""

    site = ""

    def environ(self) -> dict[str, str]:
        """Return the stage's environment with that folder."""
        found = super().environ()
        return found | {"PYTHONPATH": f"{self.site}:{found['PYTHONPATH']}"}


class With2(Sited, Airflow2):
    """Airflow 2.x."""


class With3(Sited, Airflow3):
    """Airflow 3.x on SQLite: of the older releases there are no drivers here."""


class With3OnPostgres(Sited, Airflow3OnPostgres):
    """Airflow 3.x where seven tasks at once do not make its api-server stand still."""


def host_of(release: Release, ledger: Ledger) -> With2 | With3 | With3OnPostgres:
    """Return the Airflow of a release."""
    if release.version.startswith("2."):
        return With2(release, ledger, DAGS)
    if release.version in NEWEST:
        (port,) = free_ports(1)
        return With3OnPostgres(release, ledger, DAGS, port=port)
    return With3(release, ledger, DAGS)


def bound(path: Path) -> socket.socket:
    """Return a socket at a path."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    return made


def waiting(end: socket.socket) -> int:
    """Return how many datagrams a socket holds, and take them."""
    end.settimeout(0)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            end.recv(1)
            count += 1
    return count


@contextmanager
def missing(_: Path) -> Iterator[None]:
    """Leave nothing there."""
    yield


@contextmanager
def gone(path: Path) -> Iterator[None]:
    """Leave the socket of an agent that was killed."""
    bound(path).close()
    yield
    path.unlink()


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Leave a socket that nobody reads, with no room for one datagram more."""
    with bound(path) as unread:
        took = fill(str(path))
        yield
        if (more := waiting(unread) - took) != 0:
            raise StageError(f"the socket was not full: it took {more} datagrams more")
    path.unlink()


TROUBLES: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "missing": missing,
    "gone": gone,
    "full": full,
}


def run(host: AirflowHost, cases: tuple[str, ...], run_id: str) -> dict[str, str]:
    """Run cases at the same time; return how they ended."""
    for case in cases:
        host.trigger(f"case_{case}", run_id)
    return {case: host.wait_for_end(f"case_{case}", run_id, within_s=120) for case in cases}


def play(host: AirflowHost, path: Path) -> dict[str, dict[str, str]]:
    """Run everything; return how each run ended."""
    host.start()
    host.wait_for_dags({f"case_{case}" for case in CASES})
    states = {HEARD: run(host, CASES, HEARD)}
    if isinstance(host, Airflow3):
        # One that has ended, as a user does in the UI.
        host.set_state(f"case_{PLAIN}", HEARD, "t", "failed")
    aside = path.with_suffix(".aside")
    path.rename(aside)
    for name, trouble in TROUBLES.items():
        with trouble(path):
            states[name] = run(host, (PLAIN,), name)
    aside.rename(path)
    return states


def main(version: str, home: Path, site: str) -> int:
    """Play, stop everything, tell; status as the module says."""
    stop_on_signals()
    try:
        release = (NEWEST | OLDER)[version]
        provide(release)
        ledger = Ledger(home)
        host = host_of(release, ledger)
        host.site = site
        try:
            states = play(host, Path(os.environ["PIDTRAIL_CLAIMS"]))
        finally:
            ledger.stop_all()
    except (StageError, InstallError) as error:
        say(f"Airflow {version}: {error}")
        return 1
    (home / "states.json").write_text(json.dumps(states))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve(), sys.argv[3]))
