"""
What it costs to ask the service about a long history: `python -m benchmarks.asking [EVENTS]`.

Writes a history of so many records (default 1,000,000), serves it from a process that writes on
meanwhile, as a busy capture does, and asks: the bytes alone, `explain --since`, `explain --run` and
`explain`.
Prints one JSON document: how long each took, the CPU time of the service for it beside what the
writing took, and by how much its longest turn came late, with and without an asker.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from benchmarks.measure import cpu_ns
from pidtrail.events import Event, Exit, Fork, Reap
from pidtrail.keeper import Bounds, Keeper
from pidtrail.service.protocol import Request, line
from pidtrail.service.server import Server
from tests.endurance.resident import resident_kib
from tests.unit.asking import head
from tests.unit.story import LOG, Airflow3, ref, uuid

EVENTS = 1_000_000
CHILDREN = 100
"""Of each task: a shell script with so many commands."""
BATCH = 300
WIDE = Bounds(max_age_s=7 * 86_400, max_bytes=8 << 30)
PER_TURN, TURN_S = 200, 0.04
"""5,000 records a second."""
QUIET_S = 5.0


def tasks(story: Airflow3, events: int) -> Iterator[list[Event]]:
    """Yield batches of records of tasks one after the other, each with its children."""
    told = 0
    for number in range(1, sys.maxsize):
        name, task = f"task{number}", structs.replace(ref(1, uuid(number)), run_id=f"run{number}")
        story.title("worker", f"airflow worker -- LocalExecutor: {task.ti_id}")
        story.fork("worker", name).log(name, LOG.format(1).replace("manual__1", f"run{number}"))
        story.title(name, f"airflow worker -- {task.ti_id}").report(task, "running", name)
        for child in range(CHILDREN):
            one = f"{name}.{child}"
            story.fork(name, one).exec(one, "/bin/date", "+%s").exit(one).reap(one, 1)
        story.exit(name).reap(name, 1).report(task, "success", name).idle("worker")
        told += len(story.events)
        for at in range(0, len(story.events), BATCH):
            yield story.events[at : at + BATCH]
        story.events.clear()
        if told >= events:
            return


def write(folder: Path, events: int) -> int:
    """Write a history; return how many records it has."""
    story, ours, told = Airflow3(), head(), 0
    keeper = Keeper(folder, WIDE, (ours.boot_id, ours.pid_ns), now_ns=lambda: story.now_ns)
    keeper.begin(ours)
    for batch in tasks(story, events):
        keeper.write(batch)
        told += len(batch)
        if keeper.is_due():
            keeper.begin(ours)
    keeper.close()
    return told


def serve(folder: Path, path: str) -> None:
    """Answer, and write on all the time; each line on stdin is answered with the latest turn."""
    ours = head()
    keeper = Keeper(folder, WIDE, (ours.boot_id, ours.pid_ns))
    keeper.begin(ours)
    server = Server(path, folder)
    server.start()
    seq, worst_s = keeper.last_seq + 1, 0.0
    print("ready", flush=True)
    due = time.monotonic()
    stdin = sys.stdin.fileno()
    import select  # noqa: PLC0415 (of the child alone)

    while True:
        due += TURN_S
        time.sleep(max(0.0, due - time.monotonic()))
        worst_s = max(worst_s, time.monotonic() - due)
        keeper.write(lives(seq, PER_TURN))
        seq += 3 * (PER_TURN // 3)
        if keeper.is_due():
            keeper.begin(ours)
        if select.select([stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                break
            print(worst_s, flush=True)
            worst_s = 0.0
    server.stop()
    keeper.close()


def lives(first: int, count: int) -> list[Event]:
    """Return so many births, ends and reapings."""
    found: list[Event] = []
    for n in range(first, first + 3 * (count // 3), 3):
        pid = n % 32_768 + 2
        found.append(Fork(n, n, "core", pid, n, ppid=1, parent_start_ticks=1, comm="sh"))
        found.append(Exit(n + 1, n, "core", pid, n, wstatus=0, exit_code=0))
        found.append(Reap(n + 2, n, "core", pid, n, zombie_ns=1000))
    return found


def bytes_alone(path: str) -> int:
    """Read an answer and throw it away; return its length."""
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)
        made.sendall(line(Request("history")))
        room, total = bytearray(1 << 20), 0
        while got := made.recv_into(room):
            total += got
    return total


def explained(path: str, *options: str) -> int:
    """Return how many verdicts the command line gives."""
    done = subprocess.run(
        [sys.executable, "-m", "pidtrail", "explain", "--json", "--socket", path, *options],
        stdout=subprocess.PIPE,
        check=True,
    )
    return len(json.loads(done.stdout)["verdicts"])


class Service:
    """The process that answers."""

    def __init__(self, folder: Path, path: str) -> None:
        self.path = path
        command = [sys.executable, "-m", "benchmarks.asking", "--serve", str(folder), path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tell()

    def tell(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def worst_s(self) -> float:
        """Return by how much its longest turn since the last time was late."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.tell())

    def during(self, what: Callable[[], int]) -> dict[str, Any]:
        """Do something, and return what it gave and took."""
        self.worst_s()
        before, began = cpu_ns(self.process.pid), time.monotonic()
        gave = what()
        took = time.monotonic() - began
        cpu_s = (cpu_ns(self.process.pid) - before) / 1e9
        return {
            "gave": gave,
            "seconds": round(took, 3),
            "service_cpu_s": round(cpu_s, 3),
            "service_cpu_percent": round(100 * cpu_s / took, 1),
            "latest_turn_ms": round(1000 * self.worst_s(), 1),
            "resident_kib": resident_kib(self.process.pid),
        }

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def rest() -> int:
    """Ask nothing."""
    time.sleep(QUIET_S)
    return 0


def children_peak_kib() -> int:
    """Return the greatest of those who were waited for, which the service is not yet."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def measure(place: Path, events: int) -> dict[str, Any]:
    """Return all figures."""
    written = write(place / "history", events)
    path = str(place / "pidtrail.sock")
    service = Service(place / "history", path)
    try:
        found: dict[str, Any] = {
            "events": written,
            "bytes_on_disk": sum(one.stat().st_size for one in (place / "history").iterdir()),
            "nobody asks": service.during(rest),
            "bytes alone": service.during(lambda: bytes_alone(path)),
            "explain --since": service.during(lambda: explained(path, "--since", "10s")),
            "explain --run": service.during(lambda: explained(path, "--run", "run50")),
            "asker_of_a_run_peak_kib": children_peak_kib(),
            "explain": service.during(lambda: explained(path)),
            "asker_peak_kib": children_peak_kib(),
        }
    finally:
        service.close()
    return found


def main() -> None:
    """Measure, or be the service that is measured."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), sys.argv[3])
        return
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory(prefix="pidtrail-asking.") as name:
        print(json.dumps(measure(Path(name), events), indent=2))


if __name__ == "__main__":
    main()
