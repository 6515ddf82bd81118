"""
What watching costs while nothing happens: `python -m benchmarks.idle [SECONDS]`.

A tree like that of an idle Airflow: a parent, four children with four each, none of which does
anything. Every source follows it for as long, all at the same time; what they took is their CPU
clock's. The connector hears the whole host, so others' processes are in its figure.

The agent is measured in a PID namespace of its own, where no Airflow of others is found: it
follows such a tree below what looks like a scheduler, and looks at some hundred processes
beside it for others. No database is read.
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
from benchmarks.peers import Pidtrail, environment
from pidtrail.sources import proc
from pidtrail.sources.ladder import SOURCES
from tests.programs.build import program

SECONDS = 60.0
LEADERS, OF_EACH = 4, 4
PROCESSES = 1 + LEADERS * (1 + OF_EACH)
OTHER_LEADERS, OTHERS_OF_EACH = 10, 29
OTHERS = 1 + OTHER_LEADERS * (1 + OTHERS_OF_EACH)
WARM_UP_S = 2.0
AGENT_WARM_UP_S = 40.0
"""So long the agent looks again and again at who is new."""


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


@contextmanager
def idle_agent(place: Path) -> Iterator[int]:
    """Yield the number of an agent that follows such a tree, among processes that are none."""
    crowd, scheduler, config = str(program("crowd")), place / "airflow", place / "pidtrail.toml"
    scheduler.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nsubprocess.run(sys.argv[2:])\n"
    )
    scheduler.chmod(0o700)
    config.write_text(
        f'[airflow]\nplugin = "{place}/claims.sock"\n'
        f'[history]\ndirectory = "{place}/history"\n'
        f'[socket]\npath = "{place}/asked.sock"\ngroup = "root"\n'
    )
    none = place / "none"
    script = f"""
        {crowd} {none} {OTHER_LEADERS} {OTHERS_OF_EACH} 0 >/dev/null &
        AIRFLOW_HOME={none} {scheduler} scheduler {crowd} {none} {LEADERS} {OF_EACH} 0 >/dev/null &
        exec {sys.executable} -m pidtrail agent --config {config} 2>{place}/log
    """
    names = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(names, env=environment()) as process:
        try:
            time.sleep(AGENT_WARM_UP_S)
            (pid,) = proc.children_of_all()[process.pid]
            if "follows" not in (place / "log").read_text():
                raise RuntimeError((place / "log").read_text())
            yield pid
        finally:
            process.kill()


def measure_agent(seconds: float, place: Path) -> dict[str, Any]:
    """Return what the agent takes of one CPU, in percent, and its resident memory."""
    with idle_agent(place) as pid:
        began_s, before = time.monotonic(), cpu_ns(pid)
        time.sleep(seconds)
        percent = (cpu_ns(pid) - before) / (time.monotonic() - began_s) / 1e7
        resident = proc.status_value(pid, b"VmRSS")
    return {
        "processes": PROCESSES + OTHERS,
        "cpu_percent": round(percent, 3),
        "rss_kib": int(resident[0]) if resident else None,
    }


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
        found = measure_idle(seconds, Path(name))
        found["agent"] = measure_agent(seconds, Path(name))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
