"""The demo's answers are computed: the same claim gets another answer from other data."""

from __future__ import annotations

from typing import Any

from demo.claims import (
    Evidence,
    disagreements,
    moving_changes_pid,
    record_keeps_first_pid,
    restart_ends_tasks,
    retry_gets_new_pid,
    swapping_changes_pid,
    switching_changes_pid,
)
from demo.witness import Note
from pidtrail.events import TaskRef
from pidtrail.verdict.model import ProcessReport, Recorded, Verdict

ENDED = "2026-01-01T00:00:20.000000000Z"
KILLED_AT = 1767225610.0  # ten seconds before ENDED
RESTART = {"killed_scheduler": [7, 70], "killed_at": KILLED_AT, "task_lived": True}


def runner(pid: int, **fields: Any) -> ProcessReport:
    """One runner, ended with exit code 0 unless told otherwise."""
    facts: dict[str, Any] = {
        "role": "runner",
        "start_ticks": pid * 10,
        "ended": ENDED,
        "exit_code": 0,
    }
    return ProcessReport(pid=pid, **facts | fields)


def row(pid: int | None, state: str, second: int, table: str = "task_instance") -> Recorded:
    """What Airflow recorded at a second."""
    seen_at = f"2026-01-01T00:00:{second:02}Z"
    return Recorded(pid, "host", state, "db", seen_at, table=table)


def attempt(
    number: int,
    *processes: ProcessReport,
    recorded: tuple[Recorded, ...] = (),
    changed: bool = False,
) -> Verdict:
    """One try with its processes."""
    return Verdict(
        task=TaskRef("d", "t", "r", -1, number),
        recorded=list(recorded),
        processes=list(processes),
        code="match",
        outcome="match",
        confidence="proved",
        pid_changed_in_kernel=changed,
        summary="",
        evidence=[1],
        unknowns=[],
    )


def evidence(**fields: Any) -> Evidence:
    """Nothing seen, but for the fields given."""
    nothing: dict[str, Any] = {
        "retry": [],
        "long": [],
        "restart": [],
        "notes": [],
        "played": {},
        "swap_kib": 0,
    }
    return Evidence(**nothing | fields)


def test_two_tries_in_two_processes_have_two_pids() -> None:
    """The retry claim is true of two processes with two numbers."""
    seen = evidence(retry=[attempt(1, runner(5)), attempt(2, runner(6))])

    assert retry_gets_new_pid(seen).answer == "true"


def test_reused_number_is_a_new_process_but_no_new_pid() -> None:
    """A retry that happens to get the same number is another process all the same."""
    seen = evidence(retry=[attempt(1, runner(5)), attempt(2, runner(5, start_ticks=99))])

    assert retry_gets_new_pid(seen).answer == "partly"


def test_missing_try_decides_nothing() -> None:
    """Without the process of try 2 nothing is said of retries or of the record."""
    seen = evidence(retry=[attempt(1, runner(5)), attempt(2)])

    assert retry_gets_new_pid(seen).answer == "undetermined"
    assert record_keeps_first_pid(seen).answer == "undetermined"


def test_moved_process_with_one_pid_refutes_the_claim() -> None:
    """Migrations were counted, and the pid stayed."""
    played = {"flips": {"count": 50, "seconds": 1.0, "reason": None}}
    seen = evidence(long=[attempt(1, runner(5, migrations=40))], played=played)

    assert moving_changes_pid(seen).answer == "false"
    assert "40 times" in moving_changes_pid(seen).evidence


def test_process_that_never_moved_decides_nothing() -> None:
    """A pid that stayed says nothing if the process stayed where it was."""
    seen = evidence(long=[attempt(1, runner(5, migrations=0))])

    assert moving_changes_pid(seen).answer == "undetermined"


def test_changed_pid_would_be_reported() -> None:
    """Should a kernel ever change a pid, the demo says so."""
    seen = evidence(long=[attempt(1, runner(5, migrations=9), changed=True)])

    assert moving_changes_pid(seen).answer == "true"


def test_host_without_swap_and_without_faults_decides_nothing() -> None:
    """Nothing was swapped, so nothing was shown."""
    finding = swapping_changes_pid(evidence(long=[attempt(1, runner(5, major_faults=0))]))

    assert finding.answer == "undetermined"
    assert "no swap" in finding.evidence


def test_switched_processes_refute_the_claim() -> None:
    """Switches were counted, and no pid changed."""
    process = runner(5, voluntary_switches=3, involuntary_switches=4)

    assert switching_changes_pid(evidence(long=[attempt(1, process)])).answer == "false"
    assert switching_changes_pid(evidence()).answer == "undetermined"


def test_survivor_of_the_scheduler_refutes_the_restart_claim() -> None:
    """One process that lived on ten seconds and ended by itself."""
    seen = evidence(restart=[attempt(1, runner(5))], played={"restart": RESTART})

    assert restart_ends_tasks(seen).answer == "false"
    assert "10.0 s" in restart_ends_tasks(seen).evidence


def test_task_that_died_and_came_again_confirms_the_restart_claim() -> None:
    """A process killed with the scheduler, and another after it."""
    tries = [attempt(1, runner(5, exit_code=None, termsig=9)), attempt(2, runner(6))]
    played = {"restart": RESTART | {"task_lived": False}}

    assert restart_ends_tasks(evidence(restart=tries, played=played)).answer == "true"


def test_survivor_with_a_double_is_partly_right() -> None:
    """The first process lived on, and yet there was a second."""
    tries = [attempt(1, runner(5)), attempt(2, runner(6))]

    finding = restart_ends_tasks(evidence(restart=tries, played={"restart": RESTART}))

    assert finding.answer == "partly"


def test_row_that_follows_the_retry_does_not_keep_the_first_pid() -> None:
    """The row goes from one pid to the other as the tries do."""
    first = attempt(1, runner(5), recorded=(row(5, "running", 1),))
    second = attempt(2, runner(6), recorded=(row(6, "running", 9),))

    assert record_keeps_first_pid(evidence(retry=[first, second])).answer == "false"


def test_row_between_the_tries_still_names_the_dead() -> None:
    """While the retry is awaited the row keeps the pid of the process before."""
    first = attempt(1, runner(5), recorded=(row(5, "running", 1), row(5, "up_for_retry", 4)))
    second = attempt(2, runner(6), recorded=(row(6, "running", 9),))

    assert record_keeps_first_pid(evidence(retry=[first, second])).answer == "partly"


def test_row_that_never_follows_keeps_the_first_pid() -> None:
    """A row that says the first pid to the end."""
    first = attempt(1, runner(5), recorded=(row(5, "running", 1),))
    second = attempt(2, runner(6), recorded=(row(5, "success", 9),))

    assert record_keeps_first_pid(evidence(retry=[first, second])).answer == "true"


def test_runner_with_another_start_time_is_another_process() -> None:
    """The comparison with the tasks' own notes is by pid and start time."""
    note = Note("d", "t", "r", -1, 1, None, "begin", 5, 1, 50, 0.0, 0)
    same = evidence(long=[attempt(1, runner(5))], notes=[note])
    other = evidence(long=[attempt(1, runner(5, start_ticks=51))], notes=[note])

    assert disagreements(same) == []
    assert len(disagreements(other)) == 2
