"""The agent beside a real Airflow 3.3.2, asked while it runs about a line of a task's log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demo import ROOT
from demo.airflow3 import migrated_template
from demo.environment import install
from pidtrail.verdict.model import Report, Verdict
from tests.airflow.asked_driver import CASE, FOREIGN_PID, RUN_ID

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]
VERSION = "3.3.2"
PLAY_TIMEOUT_S = 600
INIT = '"$@"; exit $?'
"""A shell as the namespace's first process collects whom Airflow leaves behind."""


def play_apart(driver: str, version: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run a driver with its agent in a PID namespace of their own; return what it told."""
    result = folder / "result.json"
    played = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "sh"),
            *(sys.executable, "-m", f"tests.airflow.{driver}"),
            *(version, str(folder / "home"), str(result), *more),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'agent'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PLAY_TIMEOUT_S,
    )
    log = folder / "home/agent.log"
    said = log.read_text() if log.exists() else ""
    assert played.returncode == 0, f"{played.stdout}\n{played.stderr}\n{said}"
    assert "Traceback" not in said
    found: dict[str, Any] = json.loads(result.read_bytes())
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a member of the group was told."""
    migrated_template(install(VERSION))
    return play_apart("asked_driver", VERSION, tmp_path_factory.mktemp("asked"))


def answer(told: dict[str, Any], question: str) -> Any:
    """Return what was answered to a question."""
    done = told[question]
    assert (done["status"], done["err"]) == (0, "")
    return json.loads(done["out"])


def verdict_in(report: dict[str, Any]) -> Verdict:
    """Return the one verdict of a report."""
    (found,) = msgspec.convert(report, Report).verdicts
    return found


def runner(verdict: Verdict) -> int | None:
    """Return the number of the process that ran an attempt."""
    (found,) = [one for one in verdict.processes if one.role == "runner"]
    return found.pid


def test_a_line_of_the_log_finds_its_run(told: dict[str, Any]) -> None:
    """409 running_elsewhere, as Airflow wrote it: the process that was ended for it, and why."""
    said = answer(told, "message")
    verdict = verdict_in(said["report"])

    assert "running-elsewhere" in [one["kind"] for one in said["messages"]]
    assert (verdict.task.dag_id, verdict.task.run_id, verdict.task.try_number) == (CASE, RUN_ID, 1)
    assert runner(verdict) == told["pid"]
    assert verdict.recorded[-1].pid == FOREIGN_PID
    assert f"its heartbeat was refused, for the row said PID {FOREIGN_PID}" in verdict.summary


def test_what_lived_since_an_instant_is_told_whole(told: dict[str, Any]) -> None:
    """Up to the scheduler, which the agent found by itself."""
    verdict = verdict_in(answer(told, "since"))
    (process,) = [one for one in verdict.processes if one.role == "runner"]

    assert [link.role for link in process.chain] == ["runner", "supervisor", "scheduler"]
    assert process.chain[-1].pid == told["scheduler"]


def test_the_tree_of_the_task_is_told(told: dict[str, Any]) -> None:
    """The scheduler, its worker, and the process that ran the task."""
    processes = {one["pid"]: one for one in answer(told, "tree")["processes"]}
    ended = processes[told["pid"]]

    assert ended["role"] == "runner"
    assert ended["task"]["dag_id"] == CASE
    assert processes[ended["birth_parent"]["pid"]]["birth_parent"]["pid"] == told["scheduler"]
