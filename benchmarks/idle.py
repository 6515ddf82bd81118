"""
What watching costs while nothing happens: `python -m benchmarks.idle [SECONDS]`.

A tree like that of an idle Airflow: a parent, four children with four each, none of which does
anything. Every source follows it for as long, all at the same time; what they took is their CPU
clock's. The connector hears the whole host, so others' processes are in its figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Watched, cpu_ns
from benchmarks.peers import Pidtrail
from pidtrail.sources.ladder import SOURCES
from tests.programs.build import program

SECONDS = 60.0
LEADERS, OF_EACH = 4, 4
PROCESSES = 1 + LEADERS * (1 + OF_EACH)
WARM_UP_S = 2.0


@contextmanager
def idle_tree(place: Path) -> Iterator[int]:
    """Yield the number of the root of a tree that does nothing."""
    stop = place / "stop"
    command = [str(program("crowd")), str(stop), str(LEADERS), str(OF_EACH), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for _ in range(PROCESSES):
                process.stdout.readline()  # each says that it is there
            yield process.pid
        finally:
            stop.touch()
            process.wait()


def measure_idle(seconds: float, place: Path) -> dict[str, Any]:
    """Return what each source that works here takes of one CPU, in percent."""
    cost: dict[str, Any] = {"seconds": seconds, "processes": PROCESSES}
    with idle_tree(place) as pid, ExitStack() as stack:
        watching: dict[str, Watched] = {}
        for source in SOURCES:
            if Pidtrail(source).missing() is None:
                (place / source).mkdir()
                watching[source] = Pidtrail(source).start(pid, place / source)
                stack.callback(watching[source].kill)
        time.sleep(WARM_UP_S)
        began_s = time.monotonic()
        before = {source: cpu_ns(one.process.pid) for source, one in watching.items()}
        time.sleep(seconds)
        lasted_s = time.monotonic() - began_s
        percent = {
            source: round((cpu_ns(one.process.pid) - before[source]) / lasted_s / 1e7, 3)
            for source, one in watching.items()
        }
    return {**cost, "cpu_percent": percent}


def main() -> None:
    """Measure for as long as the argument says."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory(prefix="pidtrail-idle-") as name:
        print(json.dumps(measure_idle(seconds, Path(name)), indent=2))


if __name__ == "__main__":
    main()
