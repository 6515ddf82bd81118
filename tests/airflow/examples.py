"""
Examples of verdicts from real runs, for docs/verdicts.md.

    .venv/bin/python -m tests.airflow.examples FOLDER...

reads `verdicts.json` of the folders that the session of these tests has left (its
base folder's `airflow-VERSION`), and writes docs/examples.json anew for the codes
that they yield; examples of other codes stay. Then make the page:
`.venv/bin/python -m tests.unit.verdicts_page`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec

from pidtrail.verdict.model import Report, Verdict

FILE: Final = Path(__file__).resolve().parents[2] / "docs/examples.json"


class Played(msgspec.Struct, frozen=True):
    """A case whose verdict is shown: what was done in it, on which major version."""

    case: str
    major: str
    done: str
    try_number: int = 1


class Example(msgspec.Struct, frozen=True):
    """What one real run was judged to be."""

    airflow: str
    case: str
    done: str
    outcome: str
    confidence: str
    summary: str


PLAYED: Final = {
    "match": Played(
        "set_state", "3", "A user marked a running task as failed; the task ignored SIGTERM."
    ),
    "retry": Played("kill_runner", "3", "The task's process got SIGKILL; retries=1."),
    "clear": Played("cleared", "3", "A user cleared the task while it ran."),
    "reschedule": Played("reschedule", "3", "A sensor in mode reschedule poked three times."),
    "deferral": Played("deferral", "3", "The task deferred itself and was resumed."),
    "orphaned-still-running": Played("kill_supervisor", "2", "The supervisor got SIGKILL."),
    "aborted-start": Played(
        "refused", "3", "A user marked the task as failed while it was queued."
    ),
    "impersonation": Played("own_user", "2", "run_as_user names the user that Airflow runs as."),
    "died-unrecorded": Played(
        "unrecorded", "2", "The task's process got SIGKILL while it read the DAG file."
    ),
    "undetermined": Played(
        "row_pid", "3", "Somebody wrote PID 99999 into the row of the running task."
    ),
}
"""By verdict code. Every one of them is a case of the session, and a test says so."""


def examples() -> dict[str, Example]:
    """Return the examples that are kept, by verdict code."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Example])


def chosen(verdicts: list[Verdict], played: Played) -> Verdict | None:
    """Return the verdict of a case, None if it is not among them."""
    return next(
        (
            v
            for v in verdicts
            if v.task.dag_id == f"case_{played.case}" and v.task.try_number == played.try_number
        ),
        None,
    )


def taken(folders: list[Path]) -> dict[str, Example]:
    """Return the kept examples with those of the sessions in these folders in their place."""
    found = examples() if FILE.exists() else {}
    for folder in folders:
        report = msgspec.json.decode((folder / "verdicts.json").read_bytes(), type=Report)
        version = folder.name.removeprefix("airflow-")
        for code, played in PLAYED.items():
            verdict = chosen(report.verdicts, played)
            if (
                version.startswith(f"{played.major}.")
                and verdict is not None
                and verdict.code == code
            ):
                found[code] = Example(
                    version,
                    played.case,
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
