"""The service beside a real Airflow that it finds by itself, in a PID namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo import ROOT
from demo.environment import install
from pidtrail.history import Boot, History
from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.model import Verdict
from tests.agent.conftest import Agent, Namespace

DRIVER_S = 240

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.needs_airflow]


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """Return the history of an agent that was there before Airflow came, and after it went."""
    folder = tmp_path_factory.mktemp("agent")
    namespace = Namespace()
    agent = Agent(namespace, folder)
    try:
        agent.start()
        command = ["-m", "tests.airflow.versions_driver", install("3.3.2").version]
        played = namespace.run(
            *(sys.executable, *command, str(folder / "home"), str(folder / "result.json")),
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'agent'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = played.communicate(timeout=DRIVER_S)
        assert played.returncode == 0, said
        agent.kill(signal.SIGTERM)
        assert agent.ended() == 0, agent.log.read_text()
    finally:
        namespace.end()
        agent.manager.close()
    (found,) = History(agent.history).boots()
    return found


def verdicts(boot: Boot) -> list[Verdict]:
    """Return the verdicts on a stretch of the history."""
    report = judge_stream(boot.header, boot.events(), problems=boot.problems)
    assert boot.problems == []
    return report.verdicts


def test_it_needs_to_be_told_nothing(boot: Boot) -> None:
    """Scheduler, database and logs are found, and each attempt is judged with all certainty."""
    found = [
        (v.task.dag_id, v.task.map_index, v.task.try_number, v.code, v.confidence)
        for v in verdicts(boot)
    ]

    assert sorted(found, key=str) == [
        ("case_bash", -1, 1, "match", "proved"),
        *(("case_mapped", n, 1, "match", "proved") for n in range(4)),
        ("case_retry", -1, 1, "retry", "proved"),
        ("case_retry", -1, 2, "match", "proved"),
    ]
    assert boot.header.airflow_db is not None
    assert boot.header.airflow_db.startswith("sqlite:////")


def test_a_file_of_the_history_is_explained_like_any_recording(boot: Boot) -> None:
    told = subprocess.run(
        [Path(sys.executable).with_name("pidtrail"), "explain", boot.segments[-1].path],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NO_COLOR": "1"},
    )

    assert "case_retry" in told.stdout
