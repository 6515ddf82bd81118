"""
What a task knows of itself, written down by the task.

Runs inside Airflow's environment, in the process that runs user code: the
notes are what pidtrail's findings are compared with, so nothing of pidtrail
is used to make them. A note is one JSON file in the folder named by
`PIDTRAIL_NOTES`; see `Note` for its fields.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "PIDTRAIL_NOTES"


@dataclass(frozen=True)
class Note:
    """
    One process that ran user code, in its own words.

    `start_ticks` is field 22 of /proc/self/stat, in USER_HZ ticks since boot;
    `at_boot_ns` is CLOCK_BOOTTIME, `at` seconds since the epoch; `phase` is
    `begin`, `end`, or the name of a step between. `ti_id` is None in 2.x.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    ti_id: str | None
    phase: str
    pid: int
    ppid: int
    start_ticks: int
    at: float
    at_boot_ns: int

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process of this boot shares: pid and start time in ticks."""
        return self.pid, self.start_ticks


def write_note(context: Any, phase: str) -> Note:
    """
    Note which process this is; `context` is the Airflow context of the task.

    The file appears whole or not at all: a reader may be waiting for it.
    """
    instance = context["ti"]
    ti_id = getattr(instance, "id", None)
    note = Note(
        dag_id=instance.dag_id,
        task_id=instance.task_id,
        run_id=instance.run_id,
        map_index=instance.map_index,
        try_number=instance.try_number,
        ti_id=None if ti_id is None else str(ti_id),
        phase=phase,
        pid=os.getpid(),
        ppid=os.getppid(),
        start_ticks=_own_start_ticks(),
        at=time.time(),
        at_boot_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )
    folder = Path(os.environ[FOLDER_VARIABLE])
    name = f"{note.at_boot_ns}-{note.dag_id}-{note.map_index}-{note.try_number}-{note.pid}-{phase}"
    unfinished = folder / f"{name}.part"
    unfinished.write_text(json.dumps(asdict(note), indent=1))
    unfinished.rename(folder / f"{name}.json")
    return note


def read_notes(folder: Path) -> list[Note]:
    """All notes in a folder, oldest first."""
    notes = [Note(**json.loads(path.read_text())) for path in folder.glob("*.json")]
    return sorted(notes, key=lambda note: note.at_boot_ns)


def _own_start_ticks() -> int:
    # comm may hold spaces and parentheses, so count the fields behind the last ")" (proc(5)).
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])
