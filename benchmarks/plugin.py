"""
What a hook of Airflow's plugin costs the task that calls it: `python -m benchmarks.plugin`.

Prints one JSON document: microseconds per hook, beginning and end of a task apart, with an
agent that reads, without one, with the socket of a dead one, and with one that is full.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.plugin_file import Instance, fill, load

HOOKS = 5000
WARM = 200


def bound(path: str) -> socket.socket:
    """Return a socket at a path."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.settimeout(0)
    made.bind(path)
    return made


def read(end: socket.socket) -> None:
    """Empty a socket."""
    with contextlib.suppress(BlockingIOError):
        while True:
            end.recv(65536)


def measure(hook: Callable[[Any], None], between: Callable[[], None]) -> dict[str, float]:
    """Return what one hook takes, in µs: by the clock, and of CPU time, where load counts less."""
    instance, wall, cpu = Instance(), [], []
    for _ in range(WARM + HOOKS):
        began, used = time.perf_counter_ns(), time.thread_time_ns()
        hook(instance)
        cpu.append((time.thread_time_ns() - used) / 1000)
        wall.append((time.perf_counter_ns() - began) / 1000)
        between()
    wall, cpu = sorted(wall[WARM:]), sorted(cpu[WARM:])
    return {
        "median": round(statistics.median(wall), 1),
        "p99": round(wall[len(wall) * 99 // 100], 1),
        "cpu_median": round(statistics.median(cpu), 1),
        "cpu_p99": round(cpu[len(cpu) * 99 // 100], 1),
    }


def main() -> None:
    """Measure each case and print the document."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pidtrail-bench-") as folder:
        path = f"{folder}/claims.sock"
        os.environ["PIDTRAIL_CLAIMS"] = path
        listener = load().Listener()
        hooks = {
            "begin_us": listener.on_task_instance_running,
            "end_us": listener.on_task_instance_success,
        }

        def case(name: str, between: Callable[[], None]) -> None:
            found[name] = {hook: measure(call, between) for hook, call in hooks.items()}

        case("missing", lambda: None)
        bound(path).close()
        case("gone", lambda: None)
        Path(path).unlink()
        with bound(path) as end:
            case("read", lambda: read(end))
            length = fill(path)
            case("full", lambda: None)
    json.dump({"hooks": HOOKS, "queue": length, "cases": found}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
