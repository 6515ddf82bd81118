"""
Plays a refused heartbeat under the agent, and asks the agent about it while it runs.

    python -m tests.airflow.asked_driver VERSION HOME RESULT

To be run in a PID namespace of its own, for an agent follows every Airflow of its host. It
starts before Airflow. Somebody writes another PID into the row of a task that runs; what
Airflow then writes into the task's log is what a member of the group asks the agent about.
RESULT (JSON) has that line, the PIDs, and what the member was told.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from demo.airflow3 import Airflow3
from demo.environment import Release
from demo.processes import Ledger, StageError, wait_until
from tests.airflow.performance import perform
from tests.service.test_users import GID, GROUP, NOBODYS_GID, USER, explained

DAGS = Path(__file__).with_name("held_dags")
PIDTRAIL = Path(sys.executable).with_name("pidtrail")
CASE, RUN_ID, TASK = "case_chain", "asked", "t"
FOREIGN_PID = 999_983
WORD = "running_elsewhere"
SETTINGS = """
[airflow]
plugin = "{folder}/claims.sock"
[history]
directory = "{folder}/history"
[socket]
path = "{folder}/pidtrail.sock"
group = "{group}"
"""


def line_with(word: str, log: Path) -> str | None:
    """Return the line of a log that has a word, None if there is none yet."""
    lines = log.read_text().splitlines() if log.exists() else []
    return next((line for line in lines if word in line), None)


def ask(folder: Path, *words: str) -> dict[str, Any]:
    """Return what a member of the group is told."""
    done = explained(folder / "pidtrail.sock", USER, NOBODYS_GID, GID, words=words)
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr}


def play(host: Airflow3, folder: Path, agent: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Run the task, give its row to another process, ask."""
    host.start()
    host.wait_for_dags({CASE})
    host.trigger(CASE, RUN_ID)
    (note,) = host.wait_for_note(CASE, within_s=90)
    host.set_pid(CASE, RUN_ID, TASK, FOREIGN_PID)
    log = host.home / f"logs/dag_id={CASE}/run_id={RUN_ID}/task_id={TASK}/attempt=1.log"
    line = wait_until(lambda: line_with(WORD, log), within_s=60, what="the refused heartbeat")
    host.wait_for_end(CASE, RUN_ID, within_s=60)
    told = {
        "line": line,
        "pid": note.pid,
        "scheduler": host.scheduler.pid,
        "message": ask(folder, "explain", "--message", line or "", "--json"),
        "since": ask(folder, "explain", "--since", "10m", "--dag", CASE, "--json"),
        "tree": ask(folder, "tree", "--task", f"{CASE}.{TASK}", "--json"),
    }
    if agent.poll() is not None:
        raise StageError(f"the agent ended with {agent.returncode}")
    return told


def on_stage(release: Release, ledger: Ledger, port: int | None) -> dict[str, Any]:
    """Start the agent, then Airflow."""
    del port
    with tempfile.TemporaryDirectory(prefix="pidtrail-asked.") as made:
        folder = Path(made)
        folder.chmod(0o755)
        config, log = folder / "pidtrail.toml", ledger.home / "agent.log"
        config.write_text(SETTINGS.format(folder=folder, group=GROUP))
        with log.open("wb") as output:
            agent = subprocess.Popen(
                [str(PIDTRAIL), "agent", "--config", str(config)], stdout=output, stderr=output
            )
        try:
            wait_until((folder / "pidtrail.sock").exists, within_s=30, what="the agent's socket")
            return play(Airflow3(release, ledger, DAGS), folder, agent)
        finally:
            agent.terminate()
            agent.wait(40)


if __name__ == "__main__":
    sys.exit(perform(on_stage))
