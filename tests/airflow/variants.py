"""
Plays what is not a forking LocalExecutor: each way of running tasks on a real Airflow, traced.

A way is a stage of its own (`tests.airflow.ways`) or one command as a person
types it. All ways of a version are played at the same time, when its first
test asks for one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec
import pytest

from demo import ROOT
from demo.airflow3 import Airflow3, migrated_template
from demo.airflow3 import database_url as sqlite_url
from demo.airflow_host import free_ports
from demo.environment import InstallError, Release, install
from demo.postgres import database_url as postgres_url
from demo.processes import Ledger, StageError
from demo.witness import Note, read_notes
from pidtrail.verdict.model import ProcessReport, Verdict
from tests.airflow.tracing import PIDTRAIL, explain, give_plugin, trace
from tests.airflow.ways import DAGS, Sequential2

NEEDS = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_airflow,
    pytest.mark.needs_postgres,
    pytest.mark.timeout(900),
]
"""Of every test that reads what is played here."""
TWO, THREE = "2.11.2", "3.3.2"
STAGES = {TWO: ("users", "interpreter", "sequential"), THREE: ("users", "standalone")}
# By hand: the words behind `airflow`. An executor of 3.x wants an api-server beside it.
COMMANDS = {
    "tasks test": ("tasks", "test", "way_plain", "t"),
    "dags test": ("dags", "test", "way_retry"),
    "dags test by executor": ("dags", "test", "way_retry", "--use-executor"),
}
BY_HAND = {TWO: tuple(COMMANDS), THREE: ("tasks test", "dags test")}
SOCKET = "claims.sock"
SUDOERS = ROOT / "tests/airflow/own_sudoers.sh"
STAGE_TIMEOUT_S = 600
# A ledger's file is named after its process, and the commands are played in threads of this one.
ONE_LEDGER = Lock()
FAILURES = (InstallError, StageError, OSError, subprocess.SubprocessError, msgspec.MsgspecError)


class Played(NamedTuple):
    """One way of one version: what the tasks wrote of themselves, and what pidtrail says."""

    recording: Path
    verdicts: list[Verdict]
    notes: list[Note]

    def of(self, case: str) -> list[Verdict]:
        """Verdicts of one case, by map index and try."""
        mine = [verdict for verdict in self.verdicts if verdict.task.dag_id == f"way_{case}"]
        return sorted(mine, key=lambda one: (one.task.map_index or 0, one.task.try_number or 0))

    def one(self, case: str) -> Verdict:
        """Return the only verdict of a case."""
        (verdict,) = self.of(case)
        return verdict

    def codes(self, case: str) -> list[str]:
        """Verdict codes of one case, by map index and try."""
        return [verdict.code for verdict in self.of(case)]

    def noted(self, case: str) -> set[tuple[int, int]]:
        """Pid and start time of each process that ran user code of a case, in its own words."""
        return {note.identity for note in self.notes if note.dag_id == f"way_{case}"}


def runners(verdict: Verdict, role: str = "runner") -> list[ProcessReport]:
    """Return the processes of an attempt that have a role, oldest first."""
    return [process for process in verdict.processes if process.role == role]


def identities(verdicts: list[Verdict]) -> set[tuple[int | None, int | None]]:
    """Return pid and start time of all runners."""
    return {(one.pid, one.start_ticks) for verdict in verdicts for one in runners(verdict)}


def chain(verdict: Verdict) -> list[str | None]:
    """Return the roles from the only runner upwards."""
    (runner,) = runners(verdict)
    return [who.role for who in runner.chain]


def recorded(verdict: Verdict) -> int | None:
    """Return the pid that Airflow recorded last."""
    return [seen.pid for seen in verdict.recorded if seen.pid is not None][-1]


def play_stage(way: str, version: str, folder: Path) -> Path:
    """Trace a stage of `tests.airflow.ways`; return its recording."""
    home = folder / "home"
    driver = [
        *(sys.executable, "-m", "tests.airflow.ways"),
        *(way, version, str(home), str(folder / "result.json")),
    ]
    give_plugin(home)
    if way in {"users", "interpreter"}:
        driver = [str(SUDOERS), str(ROOT), *driver]
    if version == TWO and way != "sequential":
        (port,) = free_ports(1)
        database = postgres_url(port)
        driver.append(str(port))
    else:
        database = sqlite_url(home)
    options = ("--airflow-db", database, "--airflow-plugin", str(folder / SOCKET))
    return trace(folder, driver, *options, timeout_s=STAGE_TIMEOUT_S)


def play_command(name: str, release: Release, folder: Path) -> Path:
    """Trace one `airflow` command; pidtrail finds the database by itself."""
    home = folder / "home"
    home.mkdir()
    kind = Sequential2 if release.version == TWO else Airflow3
    with ONE_LEDGER:
        ledger = Ledger(home)
        host = kind(release, ledger, DAGS)
        host.prepare_home()
        give_plugin(home)
        ledger.stop_all()
    argv = [str(release.python), str(release.command), *COMMANDS[name]]
    environ = host.environ()
    # 2.x starts its supervisor as `airflow`, from PATH.
    environ["PATH"] = f"{release.command.parent}{os.pathsep}{environ['PATH']}"
    plugin = ("--airflow-plugin", str(folder / SOCKET))
    return trace(folder, argv, *plugin, timeout_s=STAGE_TIMEOUT_S, environ=environ)


def play(way: str, version: str, base: Path) -> Played | str:
    """Play one way; return the reason if it does not work."""
    folder = base / f"{way.replace(' ', '-')}-{version}"
    folder.mkdir(mode=0o755)
    try:
        if way in COMMANDS:
            recording = play_command(way, install(version), folder)
        else:
            recording = play_stage(way, version, folder)
        return Played(recording, explain(recording), read_notes(folder / "home/notes"))
    except FAILURES as error:
        return f"{way} on {version}: {type(error).__name__}: {error}"


@functools.cache
def played_once(version: str, base: Path) -> dict[str, Played | str]:
    """Play all ways of a version side by side."""
    ways = [*STAGES[version], *BY_HAND[version]]
    try:
        migrated_template(install(version))
    except FAILURES as error:
        return dict.fromkeys(ways, f"{type(error).__name__}: {error}")
    with ThreadPoolExecutor(len(ways)) as pool:
        return dict(zip(ways, pool.map(lambda way: play(way, version, base), ways), strict=True))


@dataclass(frozen=True)
class Ways:
    """All that was played on one version; a reason stands where it could not be."""

    version: str
    outcomes: dict[str, Played | str]

    def __getitem__(self, way: str) -> Played:
        """Return what was played; fails the test if it could not be."""
        outcome = self.outcomes[way]
        if isinstance(outcome, str):
            pytest.fail(outcome, pytrace=False)
        return outcome


def home_of(played: Played) -> Path:
    """Return the home of the Airflow that was traced."""
    return played.recording.with_name("home")


def asked(command: str, recording: Path, *options: str) -> bytes:
    """Return what a command of pidtrail says of a recording."""
    argv = [str(PIDTRAIL), command, str(recording), *options]
    return subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout


def tree_of(played: Played) -> list[dict]:
    """Return all processes that were traced."""
    return json.loads(asked("tree", played.recording, "--json"))["processes"]


def argv_of(played: Played, process: ProcessReport) -> list[str] | None:
    """Return the arguments of the last program that a process executed, None if it did not."""
    (node,) = (
        one
        for one in tree_of(played)
        if (one["pid"], one["start_ticks"]) == (process.pid, process.start_ticks)
    )
    return node["images"][-1]["argv"] if node["images"] else None
