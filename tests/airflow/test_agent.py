"""
The service beside two real Airflows that it finds by itself, in a PID namespace of its own.

They are two installations: the same DAGs, runs and tasks in two databases. `trace --airflow` is
beside them too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from demo import ROOT
from demo.airflow3 import migrated_template
from demo.environment import install
from pidtrail.history import Boot, History
from pidtrail.sources.replay import Replay
from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.model import Verdict
from tests.agent.conftest import PIDTRAIL, Agent, Namespace, wait_for

DRIVER_S = 240
NAMES = ("one", "two")

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_airflow,
    pytest.mark.timeout(900),
]


class Host(NamedTuple):
    """What was kept: the agent's history, a recording of `trace`, and what each driver told."""

    boot: Boot
    recording: Path
    told: dict[str, dict[str, Any]]


def start(namespace: Namespace, folder: Path, name: str) -> subprocess.Popen[str]:
    """Start an Airflow with its driver."""
    command = ["-m", "tests.airflow.beside_driver", "3.3.2", str(folder / name)]
    return namespace.run(
        *(sys.executable, *command, str(folder / f"{name}.json")),
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'agent'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def schedulers(agent: Agent) -> int:
    """Return how many schedulers the agent has found."""
    return sum(line["role"] == "scheduler" for line in agent.logged("follows"))


def trace(namespace: Namespace, folder: Path) -> subprocess.Popen[str]:
    """Trace all Airflows that run; return when it has begun."""
    log = folder / "trace.log"
    with log.open("w") as output:
        traced = namespace.run(
            *(PIDTRAIL, "--log-format", "json", "trace", "--airflow", "--format", "none"),
            *("-o", folder / "session.db"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    wait_for(lambda: '"attached"' in log.read_text() or traced.poll() is not None, "trace")
    return traced


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Return what an agent kept that was there before they came, and after they went."""
    folder = tmp_path_factory.mktemp("agent")
    migrated_template(install("3.3.2"))
    namespace = Namespace()
    agent = Agent(namespace, folder)
    try:
        agent.start()
        drivers = [start(namespace, folder, name) for name in NAMES]
        wait_for(lambda: schedulers(agent) == len(NAMES), "both schedulers")
        traced = trace(namespace, folder)
        (folder / "go").touch()
        for driver in drivers:
            said, _ = driver.communicate(timeout=DRIVER_S)
            assert driver.returncode == 0, said
        assert traced.wait(DRIVER_S) == 0, (folder / "trace.log").read_text()
        agent.kill(signal.SIGTERM)
        assert agent.ended() == 0, agent.log.read_text()
    finally:
        namespace.end()
        agent.manager.close()
    (found,) = History(agent.history).boots()
    told = {name: json.loads((folder / f"{name}.json").read_bytes()) for name in NAMES}
    return Host(found, folder / "session.db", told)


def verdicts(host: Host, *, of: str) -> list[Verdict]:
    """Return the verdicts on what the agent kept, or on the recording of `trace`."""
    if of == "trace":
        replay = Replay(str(host.recording))
        return judge_stream(replay.header, replay.events(), problems=[]).verdicts
    assert host.boot.problems == []
    return judge_stream(host.boot.header, host.boot.events(), problems=[]).verdicts


def of_installation(host: Host, name: str, found: list[Verdict]) -> list[Verdict]:
    """Return the verdicts of one installation."""
    address = f"sqlite:///{host.recording.parent / name / 'airflow.db'}"
    return [verdict for verdict in found if verdict.airflow == address]


@pytest.mark.parametrize("who", ["agent", "trace"])
def test_two_installations_with_the_same_names_are_kept_apart(host: Host, who: str) -> None:
    """Nothing is told to it, and each attempt of each is judged for itself, with all certainty."""
    found = verdicts(host, of=who)

    assert len(found) == 2 * 3
    for name in NAMES:
        own = of_installation(host, name, found)
        assert sorted((v.task.dag_id, v.task.try_number, v.code, v.confidence) for v in own) == [
            ("case_bash", 1, "match", "proved"),
            ("case_retry", 1, "retry", "proved"),
            ("case_retry", 2, "match", "proved"),
        ]


@pytest.mark.parametrize("who", ["agent", "trace"])
def test_each_has_its_own_processes(host: Host, who: str) -> None:
    """Whom the tasks themselves name, below the scheduler of their own Airflow, and nobody else."""
    for name in NAMES:
        for verdict in of_installation(host, name, verdicts(host, of=who)):
            (runner,) = [process for process in verdict.processes if process.role == "runner"]
            task = verdict.task

            assert runner.pid == host.told[name]["ran"][f"{task.dag_id} {task.try_number}"]
            assert runner.chain[-1].pid == host.told[name]["scheduler"]
            recorded = {one.pid for one in verdict.recorded if one.pid is not None}
            # A row that waits for its next try shows the number of the one before.
            assert runner.pid in recorded <= set(host.told[name]["ran"].values())


def test_both_databases_are_found(host: Host) -> None:
    for name in NAMES:
        address = f"sqlite:///{host.recording.parent / name / 'airflow.db'}"
        assert address in (host.boot.header.airflow_db or "")
        assert address in (Replay(str(host.recording)).header.airflow_db or "")


def test_a_file_of_the_history_is_explained_like_any_recording(host: Host) -> None:
    told = subprocess.run(
        [PIDTRAIL, "explain", host.boot.segments[-1].path],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NO_COLOR": "1"},
    )

    assert "case_retry" in told.stdout
    for name in NAMES:
        assert f"Airflow at sqlite:///{host.recording.parent / name / 'airflow.db'}" in told.stdout
