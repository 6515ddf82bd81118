"""
Examples of verdicts from real runs, for docs/verdicts.md.

    .venv/bin/python -m tests.airflow.examples FOLDER...

reads the verdicts in the folders that these tests have left in pytest's base folder
(`airflow-VERSION`, `held-VERSION`, `celery-VERSION`, `containers-VERSION`, and `tasks-test-VERSION`
of the less usual ways), and writes
docs/examples.json anew for the codes that they yield; examples of other codes stay. Then
make the page: `.venv/bin/python -m tests.unit.verdicts_page`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec

from pidtrail.verdict.model import Report, Verdict

FILE: Final = Path(__file__).resolve().parents[2] / "docs/examples.json"


class Played(msgspec.Struct, frozen=True):
    """
    A DAG whose verdict is shown: what was done in it, on which major version and stage.

    `seen` names the verdicts where they are not the stage's own: those of another
    recording, or of another question.
    """

    dag_id: str
    major: str
    done: str
    try_number: int | None = 1
    stage: str = "airflow"
    seen: str = ""


class Example(msgspec.Struct, frozen=True):
    """What one real run was judged to be."""

    airflow: str
    dag_id: str
    done: str
    outcome: str
    confidence: str
    summary: str


PLAYED: Final = {
    "match": Played(
        "case_set_state", "3", "A user marked a running task as failed; the task ignored SIGTERM."
    ),
    "retry": Played("case_kill_runner", "3", "The task's process got SIGKILL; retries=1."),
    "clear": Played("case_cleared", "3", "A user cleared the task while it ran."),
    "reschedule": Played("case_reschedule", "3", "A sensor in mode reschedule poked three times."),
    "deferral": Played("case_deferral", "3", "The task deferred itself and was resumed."),
    "orphaned-still-running": Played("case_kill_supervisor", "2", "The supervisor got SIGKILL."),
    "aborted-start": Played(
        "case_refused", "3", "A user marked the task as failed while it was queued."
    ),
    "impersonation": Played(
        "case_own_user", "2", "run_as_user names the user that Airflow runs as."
    ),
    "died-unrecorded": Played(
        "case_unrecorded", "2", "The task's process got SIGKILL while it read the DAG file."
    ),
    "undetermined": Played(
        "case_row_pid", "3", "Somebody wrote PID 99999 into the row of the running task."
    ),
    "orphan-reset": Played(
        "case_reset",
        "2",
        "The scheduler got SIGKILL while the task ran; another was started 5.5 s later, with "
        "scheduler_health_check_threshold=5.",
        stage="held",
    ),
    "heartbeat-timeout": Played(
        "case_chain",
        "3",
        "The supervisor and the task's process got SIGKILL; task_instance_heartbeat_timeout=8.",
        stage="held",
    ),
    "concurrent-duplicate": Played(
        "case_unheard",
        "2",
        "The supervisor got SIGKILL and its task went on; scheduler_zombie_task_threshold=8.",
        try_number=2,
        stage="held",
    ),
    "stale-executor-event": Played(
        "case_late",
        "3",
        "A worker was stopped between the end of a poke and its word on it, until the next ran.",
        stage="held",
    ),
    "match-via-namespace": Played(
        "case_pod_1",
        "3",
        "The task ran in a PID namespace and a cgroup as kubelet makes them; pidtrail ran outside.",
        stage="containers",
    ),
    "pid-reused": Played(
        "case_lost",
        "3",
        "Supervisor and task got SIGKILL where kernel.pid_max is 400, and the numbers went round.",
        stage="containers",
    ),
    "worker-restart": Played(
        "celery_restart",
        "3",
        "All processes of a Celery worker got SIGTERM while it ran the task; retries=1.",
        stage="celery",
    ),
    "stale-between-tries": Played(
        "case_between",
        "3",
        "The first try failed, and the recording ended when the second was queued; retries=1.",
        try_number=2,
        seen="late",
    ),
    "never-seen": Played(
        "case_kill_supervisor",
        "3",
        "The supervisor got SIGKILL and its task ended unheard; the recording began after that.",
        seen="late",
    ),
    "not-recorded-yet": Played(
        "case_unrecorded",
        "2",
        "The recording ended while the task's process read the DAG file.",
        seen="unwritten",
    ),
    "ancestor-recorded": Played(
        "case_row_parent",
        "2",
        "Somebody wrote the PID of the task's supervisor into its row.",
    ),
    "descendant-observed": Played(
        "case_children",
        "3",
        "The task started sleep(1), and somebody asked `explain --pid` about that process.",
        seen="child",
    ),
    "other-host": Played(
        "case_pod_2",
        "3",
        "The task ran on another node, which has a UTS and a PID namespace of its own.",
        stage="containers",
        seen="node-1",
    ),
    "unrecorded-test": Played(
        "way_plain",
        "2",
        "A user tried the task out with `airflow tasks test`.",
        try_number=None,
        stage="tasks-test",
    ),
}
"""By verdict code. Every one of them is played again by a test of its stage."""


def of_stage(stage: str) -> list[str]:
    """Return the verdict codes whose example is played on a stage."""
    return [code for code, played in PLAYED.items() if played.stage == stage]


def file_of(played: Played) -> str:
    """Return the name of the file that has its verdicts, in the folder of its stage."""
    return f"verdicts-{played.seen}.json" if played.seen else "verdicts.json"


def examples() -> dict[str, Example]:
    """Return the examples that are kept, by verdict code."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Example])


def chosen(verdicts: list[Verdict], played: Played) -> Verdict | None:
    """Return the verdict of a case, None if it is not among them."""
    return next(
        (
            v
            for v in verdicts
            if (v.task.dag_id, v.task.try_number) == (played.dag_id, played.try_number)
        ),
        None,
    )


def assert_shown(code: str, folder: Path) -> None:
    """Prove that what was done leads to that code, and that the page has it from such a run."""
    version = folder.name.rpartition("-")[2]
    played, kept = PLAYED[code], examples()[code]
    if not version.startswith(f"{played.major}."):
        # The other version's session proves it; the page says which that is.
        assert kept.airflow.startswith(f"{played.major}.")
        return
    file = folder / file_of(played)
    verdict = chosen(msgspec.json.decode(file.read_bytes(), type=Report).verdicts, played)
    assert verdict is not None
    assert (verdict.code, verdict.outcome) == (code, kept.outcome)
    assert (kept.airflow, kept.done) == (version, played.done)


def taken(folders: list[Path]) -> dict[str, Example]:
    """Return the kept examples with those of the sessions in these folders in their place."""
    found = examples() if FILE.exists() else {}
    for folder in folders:
        stage, _, version = folder.name.rpartition("-")
        for code, played in PLAYED.items():
            if stage != played.stage or not version.startswith(f"{played.major}."):
                continue
            file = folder / file_of(played)
            verdict = chosen(msgspec.json.decode(file.read_bytes(), type=Report).verdicts, played)
            if verdict is not None and verdict.code == code:
                found[code] = Example(
                    version,
                    played.dag_id,
                    played.done,
                    verdict.outcome,
                    verdict.confidence,
                    verdict.summary,
                )
    return dict(sorted(found.items()))


def main(folders: list[Path]) -> None:
    """Write the file."""
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(taken(folders)), indent=1) + b"\n")


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
