"""
Tasks that are not run by a forking LocalExecutor: each way on a real Airflow, traced.

`tests.airflow.variants` plays them.
"""

from __future__ import annotations

import pytest

from pidtrail.verdict.model import Verdict
from tests.airflow.examples import assert_shown, of_stage
from tests.airflow.tracing import heard, judged_without_plugin
from tests.airflow.variants import (
    NEEDS,
    TWO,
    Ways,
    argv_of,
    chain,
    home_of,
    identities,
    runners,
    tree_of,
)
from tests.airflow.ways import PODS, SUDO

pytestmark = NEEDS


def test_no_way_changes_a_pid(ways: Ways) -> None:
    """A process keeps its number, whichever way it was started."""
    verdicts = [verdict for way in ways.outcomes for verdict in ways[way].verdicts]

    assert verdicts
    assert not any(verdict.pid_changed_in_kernel for verdict in verdicts)


def test_nothing_is_left_unexplained(ways: Ways) -> None:
    """No way ends in `undetermined`, or in a conflict that is none."""
    verdicts = [verdict for way in ways.outcomes for verdict in ways[way].verdicts]

    assert {verdict.outcome for verdict in verdicts} == {"match", "explained"}


# --- what the plugin tells ---


def test_plugin_tells_of_every_process_that_ran_user_code(ways: Ways) -> None:
    """Below executors, below sudo, in `tasks test` and `dags test`: by the kernel's own number."""
    for way in ways.outcomes:
        played = ways[way]
        begun = {
            (one.pid, one.start_ticks) for one in heard(played.recording) if one.state == "running"
        }

        # Those in pods wrote down the numbers that they have in there.
        outside = [one for one in played.notes if one.dag_id not in {f"way_{pod}" for pod in PODS}]
        assert {start for _, start in begun} == {note.start_ticks for note in played.notes}, way
        assert {note.identity for note in outside} <= begun, way


def test_plugin_changes_no_verdict(ways: Ways) -> None:
    """
    What it tells is in titles, logs and arguments too.

    But for the run that 2.x makes for `tasks test`: nothing else names it.
    """
    for way in ways.outcomes:
        played = ways[way]
        without = judged_without_plugin(played.recording)

        assert [judged(one) for one in played.verdicts] == [judged(one) for one in without], way


@pytest.mark.parametrize("case", ["sudo_daemon", "sudo_nobody"])
def test_word_from_below_sudo_is_not_taken(ways: Ways, case: str) -> None:
    """It came, and from the very process; that is known as the runner otherwise all the same."""
    users = ways["users"]
    (runner,) = runners(users.one(case))
    said = [
        one
        for one in heard(users.recording)
        if (one.pid, one.start_ticks) == (runner.pid, runner.start_ticks)
    ]

    assert {one.state for one in said} == {"running", "success"}
    assert runner.identified_by not in {"plugin", None}


def judged(verdict: Verdict) -> tuple[object, ...]:
    """Return what a verdict says, and of which processes."""
    processes = [(one.role, one.pid, one.start_ticks) for one in verdict.processes]
    task = (verdict.task.dag_id, verdict.task.map_index, verdict.task.try_number)
    return (task, verdict.code, verdict.outcome, verdict.confidence, processes)


# --- executors of 2.x, and their settings ---


def test_worker_per_task_is_named_as_worker(ways2: Ways) -> None:
    """With parallelism=0 each task has a worker of its own below the scheduler."""
    users = ways2["users"]
    cases = ("plain", *SUDO)
    workers = set()
    for case in cases:
        (runner,) = runners(users.one(case))
        workers |= {who.pid for who in runner.chain if who.role == "executor_worker"}

    assert len(workers) == len(cases)
    assert chain(users.one("plain"))[:4] == ["runner", "supervisor", "executor_worker", "scheduler"]
    assert users.codes("plain") == ["match"]


@pytest.mark.parametrize("case", ["plain", "mapped"])
def test_runner_below_a_new_interpreter_is_recorded(ways2: Ways, case: str) -> None:
    """The supervisor is a program of its own; its runner is a fork, and the only one."""
    new = ways2["interpreter"]

    assert identities(new.of(case)) == new.noted(case)
    assert set(new.codes(case)) == {"match"}


def test_supervisor_of_a_new_interpreter_is_known_by_its_arguments(ways2: Ways) -> None:
    """`airflow tasks run --local` below a worker supervises."""
    verdict = ways2["interpreter"].one("plain")
    (supervisor,) = runners(verdict, "supervisor")

    assert chain(verdict)[:4] == ["runner", "supervisor", "executor_worker", "scheduler"]
    assert "--local" in (argv_of(ways2["interpreter"], supervisor) or [])


@pytest.mark.parametrize(
    ("case", "code"), [("own_user", "impersonation"), ("sudo_nobody", "match")]
)
def test_another_user_below_a_new_interpreter(ways2: Ways, case: str, code: str) -> None:
    """The supervisor's kind does not matter: the alarm is false where sudo did not fork."""
    new = ways2["interpreter"]
    log = next(home_of(new).rglob(f"dag_id=way_{case}/**/attempt=1.log")).read_text()

    assert new.codes(case) == [code]
    assert ("Recorded pid" in log) is (code == "impersonation")
    assert identities(new.of(case)) == new.noted(case)


def test_setting_for_new_interpreters_has_no_effect_on_3(ways3: Ways) -> None:
    """3.3.2 forks its runners on Linux, whatever execute_tasks_new_python_interpreter says."""
    users = ways3["users"]
    verdict = users.one("plain")

    assert chain(verdict)[:3] == ["runner", "supervisor", "scheduler"]
    assert argv_of(users, runners(verdict)[0]) is None
    assert (verdict.code, identities([verdict])) == ("match", users.noted("plain"))


def test_sequential_executor_has_no_worker(ways2: Ways) -> None:
    """The scheduler executes the supervisor itself, and waits."""
    sequential = ways2["sequential"]
    verdict = sequential.one("plain")

    assert chain(verdict)[:3] == ["runner", "supervisor", "scheduler"]
    assert (verdict.code, identities([verdict])) == ("match", sequential.noted("plain"))


def test_retry_of_the_sequential_executor_is_a_retry(ways2: Ways) -> None:
    """Two tries are two processes."""
    sequential = ways2["sequential"]

    assert sequential.codes("retry") == ["retry", "match"]
    assert identities(sequential.of("retry")) == sequential.noted("retry")


# --- by hand ---


def test_tasks_run_in_a_shell_is_its_own_supervisor(ways2: Ways) -> None:
    """`airflow tasks run --local` forks the runner; nothing scheduled it, so it is attempt 0."""
    sequential = ways2["sequential"]
    verdict = sequential.one("shell")

    assert chain(verdict)[:3] == ["runner", "supervisor", "other"]
    assert verdict.task.try_number == 0
    assert (verdict.code, identities([verdict])) == ("match", sequential.noted("shell"))


def test_tasks_test_runs_user_code_itself(ways: Ways) -> None:
    """The command is the runner, below who called it; 2.x keeps no row of it."""
    test = ways["tasks test"]
    verdict = test.one("plain")

    assert verdict.code == ("unrecorded-test" if ways.version == TWO else "match")
    assert identities([verdict]) == test.noted("plain")
    assert "`airflow tasks test`" in verdict.summary
    assert not verdict.unknowns


@pytest.mark.parametrize("code", of_stage("tasks-test"))
def test_example_has_the_verdict_that_it_stands_for(ways: Ways, code: str) -> None:
    """What the page of verdicts shows of this way is what is played here."""
    assert_shown(code, ways["tasks test"].recording.parent)


def test_dags_test_runs_both_tries_itself(ways: Ways) -> None:
    """Two tries in one process: each is right on record, and none superseded the other."""
    test = ways["dags test"]

    assert [verdict.task.try_number for verdict in test.of("retry")] == [1, 2]
    assert test.codes("retry") == ["match", "match"]
    assert identities(test.of("retry")) == test.noted("retry")
    assert len(test.noted("retry")) == 1


def test_dags_test_by_an_executor_has_runners_below(ways2: Ways) -> None:
    """With --use-executor the command is no runner, and each try is a process of its own."""
    test = ways2["dags test by executor"]

    assert test.codes("retry") == ["retry", "match"]
    assert identities(test.of("retry")) == test.noted("retry")
    assert len(test.noted("retry")) == 2


# --- all in one ---


def test_standalone_is_told_apart_into_its_parts(ways3: Ways) -> None:
    """Scheduler, api-server, dag-processor and triggerer are found below the one command."""
    processes = tree_of(ways3["standalone"])
    parent = next(one for one in processes if one["argv"] and one["argv"][-1] == "standalone")
    below = [one for one in processes if (one["birth_parent"] or {}).get("pid") == parent["pid"]]
    parts = {one["role"] for one in below}

    assert {"scheduler", "api_server", "dag_processor", "triggerer"} <= parts


def test_tasks_of_standalone_are_those_of_its_scheduler(ways3: Ways) -> None:
    """The chain goes on from the scheduler to the one command."""
    standalone = ways3["standalone"]
    verdict = standalone.one("plain")

    assert chain(verdict)[:4] == ["runner", "supervisor", "scheduler", "other"]
    assert (verdict.code, identities([verdict])) == ("match", standalone.noted("plain"))
    assert standalone.codes("retry") == ["retry", "match"]
