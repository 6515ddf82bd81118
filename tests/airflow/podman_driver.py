"""
Plays a real Airflow 3.x whose scheduler, with LocalExecutor, is in a container of podman.

    python -m tests.airflow.podman_driver VERSION HOME RESULT

One run ends by itself. The container is stopped during the other one. RESULT (JSON)
has the container's id, and what the row said when it was stopped.
Status 0 when all was played and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from demo import ROOT
from demo.airflow3 import Airflow3
from demo.environment import Release, say
from demo.processes import Ledger, Manner, Piece
from tests.airflow.held_driver import DAGS
from tests.airflow.performance import perform
from tests.trace.runtime_host import Host, cgroups, command

DAG_ID: Final = "case_reset"
NAME: Final = "airflow-0"
# As Airflow's image begins.
INIT: Final = ("/usr/bin/dumb-init", "--")
GRACE_S: Final = 3


class Airflow3InPodman(Airflow3):
    """An Airflow whose scheduler is in a container with the host's root as its own."""

    def __init__(self, release: Release, ledger: Ledger, places: list[Path]) -> None:
        super().__init__(release, ledger, DAGS, parallelism=2)
        self.shared = (ROOT, release.folder.resolve(), self.home, self._scratch)
        root = ledger.make_folder("podman")
        starter = command(root, places, self.shared)
        self._machine = ledger.spawn("machine", starter, self.environ(), Manner(pipes=True))
        self.host = Host(self._machine.popen)
        self.container = ""

    def spawn(self, name: str, *command: str) -> Piece:
        """Start one part; the scheduler in its container."""
        if not name.startswith("scheduler"):
            return super().spawn(name, *command)
        options = ["--detach", f"--name={NAME}", "--network=host", "--pids-limit=-1"]
        options += ["--uts=private", f"--hostname={NAME}", f"--workdir={self.home}"]
        options += [f"--volume={folder}:{folder}" for folder in self.shared]
        options += [f"--env={name}={value}" for name, value in self.environ().items()]
        argv = [*INIT, str(self._release.python), str(self._release.command), *command]
        said = self.host.podman("run", *options, "--rootfs", "/:O", *argv)
        self.container = said.splitlines()[-1]
        return self._machine


def play(host: Airflow3InPodman) -> dict[str, object]:
    """Let a run end, and stop the container during another one."""
    host.start()
    host.wait_for_dags({DAG_ID})
    let_go = host.notes_folder / f"{DAG_ID}-1.go"
    let_go.touch()
    host.trigger(DAG_ID, "ended")
    host.wait_for_end(DAG_ID, "ended", within_s=60)
    let_go.unlink()
    host.trigger(DAG_ID, "stopped")
    host.wait_for_note(DAG_ID, count=2, within_s=60)
    say("both runs have begun")
    host.host.podman("stop", f"--time={GRACE_S}", NAME)
    return {"container": host.container}


def on_stage(release: Release, ledger: Ledger, _port: int | None) -> dict[str, object]:
    """Play on a release."""
    with cgroups() as places:
        try:
            return play(Airflow3InPodman(release, ledger, places))
        finally:
            # Nobody may be left in the cgroups.
            ledger.stop_all(grace_s=1)


if __name__ == "__main__":
    sys.exit(perform(on_stage))
