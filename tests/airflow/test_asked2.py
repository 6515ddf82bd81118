"""The agent beside a real Airflow 2.11.2 that was there before it, asked while it runs."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from demo.airflow_host import free_ports
from demo.environment import install
from pidtrail.airflow.installation import address_of
from pidtrail.verdict.model import ProcessReport, Verdict
from tests.airflow.asked2_driver import RUN_ID, RUNNING
from tests.airflow.test_asked import answer, play_apart, runner, verdict_in

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_postgres,
    pytest.mark.timeout(600),
]
VERSION = "2.11.2"
KINDS = {
    "own_user": "recorded-pid",
    "killed": "return-code",
    "unheard": "zombie-job",
    "unloaded": "executor-reports",
    "celery": "celery-executing",
}
"""What kind of line each case makes Airflow write."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a member of the group was told."""
    install(VERSION)
    folder = tmp_path_factory.mktemp("asked2")
    return play_apart("asked2_driver", VERSION, folder, *map(str, free_ports(1)))


def about(told: dict[str, Any], question: str) -> Verdict:
    """Return the one verdict of an answer."""
    found = answer(told["told"], question)
    return verdict_in(found.get("report", found))


def process(verdict: Verdict) -> ProcessReport:
    """Return the one process that ran an attempt."""
    (found,) = [one for one in verdict.processes if one.role == "runner"]
    return found


def test_the_database_is_known_though_no_setting_is_shown(told: dict[str, Any]) -> None:
    """Nothing is left where the kernel shows the scheduler's environment, nor the worker's."""
    (found,) = told["found"]

    assert told["variables"] == 0
    assert address_of(found["url"]) == address_of(told["database"])
    assert found["found"] == (
        f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN of process {told['schedulers'][0]}"
    )


def test_an_agent_that_may_not_look_says_what_to_set(told: dict[str, Any]) -> None:
    """Without CAP_SYS_PTRACE; and what it says to set suffices."""
    problems = [line["problem"] for line in told["blind"]["unset"]]
    (found,) = told["blind"]["set"]

    assert problems == [
        f"the environment of process {pid} cannot be read, nor its memory: name its database as "
        "db or db_file in [airflow] of the service's settings, or as --airflow-db"
        for pid in (told["schedulers"][0], told["worker"])
    ]
    assert address_of(found["url"]) == address_of(told["database"])


@pytest.mark.parametrize(("case", "kind"), KINDS.items())
def test_a_line_of_a_log_finds_its_run(told: dict[str, Any], case: str, kind: str) -> None:
    """As Airflow wrote it, in the task's log, the scheduler's or the Celery worker's."""
    said = answer(told["told"], f"line {case}")
    task = verdict_in(said["report"]).task

    assert kind in [one["kind"] for one in said["messages"]]
    assert (task.dag_id, task.run_id, task.try_number) == (f"case_{case}", RUN_ID, 1)


@pytest.mark.parametrize("case", [*RUNNING, "later"])
def test_whoever_ran_is_known_below_his_root(told: dict[str, Any], case: str) -> None:
    """Those too who ran before the scheduler was killed: the one that they were below is named."""
    verdict = about(told, f"task {case}")
    first, second = told["schedulers"]
    root = {"celery": told["worker"], "later": second}.get(case, first)

    assert runner(verdict) == told["pids"][case]
    assert process(verdict).chain[-1].pid == root
    assert told["pids"][case] in [row.pid for row in verdict.recorded]


def test_the_alarm_about_an_own_user_is_false(told: dict[str, Any]) -> None:
    """`Recorded pid X does not match the current pid Y`: X is the supervisor, and no record."""
    verdict = about(told, "line own_user")
    supervisor = process(verdict).chain[1].pid

    assert (verdict.code, verdict.confidence) == ("impersonation", "proved")
    assert f"Recorded pid {supervisor} does not match" in told["lines"]["own_user"]
    assert runner(verdict) == told["pids"]["own_user"] == verdict.recorded[-1].pid


@pytest.mark.parametrize("question", ["line killed", "task killed", "pid killed"])
def test_who_was_killed_and_by_whom(told: dict[str, Any], question: str) -> None:
    """`Task exited with return code -9` says no more than that."""
    verdict = about(told, question)
    killed_by = process(verdict).killed_by

    assert runner(verdict) == told["pids"]["killed"]
    assert process(verdict).termsig == signal.SIGKILL
    assert killed_by is not None
    assert killed_by.sender is not None
    assert killed_by.sender.pid == told["driver"]


def test_what_airflow_calls_a_zombie_is_dead(told: dict[str, Any]) -> None:
    verdict = about(told, "line unheard")

    assert (verdict.code, verdict.confidence) == ("heartbeat-timeout", "proved")
    assert process(verdict).ended is not None


def test_what_the_executor_reports_while_the_row_is_queued_ran_nothing(
    told: dict[str, Any],
) -> None:
    """Its supervisor could not load the DAG's file: what Airflow says in no word."""
    verdict = about(told, "line unloaded")

    assert (verdict.code, verdict.confidence) == ("aborted-start", "proved")
    assert "exited with 1" in verdict.summary
    assert "without having started a process; no PID is recorded" in verdict.summary
    assert verdict.processes == []
