"""
What it costs to ask a long recording about one task: `python -m benchmarks.asked [EVENTS]`.

Writes a recording of so many records (default 10,000,000), of tasks that each start a hundred
commands, below 32 workers; then asks `pidtrail explain` about a task instance and about a
number, each as a process of its own, three times, and takes the fastest. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from pidtrail.events import Event
from pidtrail.store import Recorder
from tests.unit.asking import head
from tests.unit.story import LOG, Airflow3, ref, uuid

EVENTS = 10_000_000
WORKERS = 32
CHILDREN = 100
BATCH = 500
MOST_PIDS = 1 << 22
"""kernel.pid_max as systemd sets it: then the numbers begin anew."""
TIMES = 3


class Host(Airflow3):
    """A scheduler with its workers; who has ended is forgotten here."""

    def __init__(self) -> None:
        self.next_pid = 1000
        super().__init__()
        for number in range(1, WORKERS):
            self.worker("scheduler", f"worker{number}")

    def born(self, name: str, pid: int | None = None) -> None:
        """Give a process the next number."""
        self.next_pid = self.next_pid + 1 if self.next_pid < MOST_PIDS else 1000
        super().born(name, pid if pid is not None else self.next_pid)

    def run_task(self, number: int) -> None:
        """Let a worker run a task with all its commands."""
        worker = f"worker{number % WORKERS or ''}"
        name, task = f"task{number}", structs.replace(ref(1, uuid(number)), run_id=f"run{number}")
        self.title(worker, f"airflow worker -- LocalExecutor: {task.ti_id}")
        self.fork(worker, name).log(name, LOG.format(1).replace("manual__1", f"run{number}"))
        self.title(name, f"airflow worker -- {task.ti_id}").report(task, "running", name)
        for child in range(CHILDREN):
            one = f"{name}.{child}"
            self.fork(name, one).exec(one, "/bin/date", "+%s").exit(one).reap(one, 1)
            for known in (self.pids, self.starts, self.parents):
                del known[one]
        self.exit(name).reap(name, 1).report(task, "success", name).idle(worker)


def batches(events: int) -> Iterator[list[Event]]:
    """Yield so many records of tasks one after the other."""
    host, told = Host(), 0
    number = 0
    while told < events:
        number += 1
        host.run_task(number)
        if len(host.events) >= BATCH:
            yield host.events
            told += len(host.events)
            host.events = []


def asked(path: Path, *options: str) -> dict[str, Any]:
    """Return what a question took, and how many verdicts it got."""
    command = [sys.executable, "-m", "pidtrail", "explain", str(path), "--json", *options]
    took, peak_kib, verdicts = [], 0, 0
    for _ in range(TIMES):
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            verdicts = len(json.loads(process.stdout.read())["verdicts"])
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        took.append(time.monotonic() - began)
        peak_kib = max(peak_kib, used.ru_maxrss)
    return {"seconds": round(min(took), 2), "peak_kib": peak_kib, "verdicts": verdicts}


def measure(path: Path, events: int) -> dict[str, Any]:
    """Return all figures."""
    recorder = Recorder(path, head())
    told, spent_s = 0, 0.0
    for batch in batches(events):
        began = time.perf_counter()
        recorder.write(batch)
        spent_s += time.perf_counter() - began
        told += len(batch)
    recorder.close()
    task = ["--dag", "sales", "--task", "load", "--run", "run77"]
    return {
        "events": told,
        "bytes": path.stat().st_size,
        "write_us_per_event": round(1e6 * spent_s / told, 2),
        "a task": asked(path, *task),
        "a number": asked(path, "--pid", "20000"),
    }


def main() -> None:
    """Measure."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory(prefix="pidtrail-asked.") as name:
        print(json.dumps(measure(Path(name) / "long.db", events), indent=2))


if __name__ == "__main__":
    main()
