"""
The tools that are measured beside each other: how each starts, when it is ready, what it saw.

Each watches fork, exec and exit, and writes what it sees into a file: pidtrail a
recording, the others the text they print.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

from benchmarks.measure import Watched
from pidtrail.sources.ladder import SOURCES, probe

ROOT = Path(__file__).resolve().parents[1]
NETLINK_CONNECTOR = "11"

BPFTRACE_PROGRAM = """
tracepoint:sched:sched_process_fork { printf("fork %d %d\\n", args->parent_pid, args->child_pid) }
tracepoint:sched:sched_process_exec { printf("exec %d %s\\n", args->pid, str(args->filename)) }
tracepoint:sched:sched_process_exit { printf("exit %d %s\\n", args->pid, args->comm) }
"""
# tracefs is not mounted everywhere; here it is for bpftrace alone.
BPFTRACE_SHELL = """
test -e /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing || exit 1
exec bpftrace -e "$1"
"""


class Tool(Protocol):
    """Something that watches processes."""

    name: str

    def missing(self) -> str | None:
        """Return why it cannot be measured here, or None."""

    def start(self, pid: int, place: Path) -> Watched:
        """Start it on the process `pid`, and return when it is attached."""

    def seen(self, place: Path) -> Counter[str]:
        """Return how many events of each kind it wrote down."""


class Pidtrail:
    """`pidtrail trace --source SOURCE --format none -o FILE --pid PID`."""

    def __init__(self, source: str = "core") -> None:
        self.source = source
        self.name = "pidtrail" if source == "core" else f"pidtrail-{source}"

    def missing(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        return probe(self.source) if os.geteuid() == 0 else "not root"

    def start(self, pid: int, place: Path) -> Watched:
        """Start it and wait for the log line that says it is attached."""
        (place / "session.db").unlink(missing_ok=True)
        command = [sys.executable, "-m", "pidtrail", "trace"]
        command += ["--source", self.source]
        command += ["--format", "none", "-o", str(place / "session.db"), "--pid", str(pid)]
        log = place / "pidtrail.log"
        started = time.monotonic()
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment()
            )
        watched = Watched(process, started)
        watched.ready(lambda _: b"attached" in log.read_bytes())
        return watched

    def seen(self, place: Path) -> Counter[str]:
        """Read the recording with the command for it; `lost` is a sum of counts."""
        command = [sys.executable, "-m", "pidtrail", "export", str(place / "session.db")]
        seen: Counter[str] = Counter()
        with subprocess.Popen(
            [*command, "--to", "jsonl"], stdout=subprocess.PIPE, env=environment()
        ) as export:
            assert export.stdout is not None
            for line in export.stdout:
                record = json.loads(line)
                seen[record["type"]] += record["count"] or 0 if record["type"] == "lost" else 1
        return seen


class Forkstat:
    """`forkstat -e fork,exec,exit`, from the netlink process connector."""

    name = "forkstat"

    def missing(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        return None if shutil.which("forkstat") else "forkstat is not installed"

    def start(self, _pid: int, place: Path) -> Watched:
        """Start it and wait until the kernel lists its socket."""
        return started_to_file(["forkstat", "-e", "fork,exec,exit"], place, self.listens)

    def listens(self, pid: int) -> bool:
        """Tell whether a connector socket of the process is bound."""
        rows = (row.split() for row in Path("/proc/net/netlink").read_text().splitlines())
        return any(row[1] == NETLINK_CONNECTOR and row[2] == str(pid) for row in rows)

    def seen(self, place: Path) -> Counter[str]:
        """Count what it printed; of a fork it prints the parent's and the child's side."""
        seen: Counter[str] = Counter()
        with (place / "output").open(errors="replace") as lines:
            for line in lines:
                words = line.split()
                if len(words) > 3 and words[1] in {"exec", "exit"}:
                    seen[words[1]] += 1
                elif len(words) > 3 and words[1] == "fork" and "child" in words[3:5]:
                    seen["fork"] += 1
        return seen


class Bpftrace:
    """A bpftrace program of three lines that prints the same three events."""

    name = "bpftrace"

    def missing(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        return None if shutil.which("bpftrace") else "bpftrace is not installed"

    def start(self, _pid: int, place: Path) -> Watched:
        """Start it and wait until its three probes are attached."""
        command = ["unshare", "--mount", "sh", "-c", BPFTRACE_SHELL, "sh", BPFTRACE_PROGRAM]
        return started_to_file(command, place, self.attached)

    def attached(self, pid: int) -> bool:
        """Tell whether it holds a perf event per CPU for its output and one per probe."""
        held = 0
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                held += "perf_event" in str(Path(entry.path).readlink())
            except FileNotFoundError:
                continue
        return held >= (os.cpu_count() or 1) + 3

    def seen(self, place: Path) -> Counter[str]:
        """Count what it printed; it says itself what it lost."""
        seen: Counter[str] = Counter()
        with (place / "output").open(errors="replace") as lines:
            for line in lines:
                words = line.split()
                if words and words[0] in {"fork", "exec", "exit"}:
                    seen[words[0]] += 1
                elif words[:1] == ["Lost"]:
                    seen["lost"] += int(words[1])
        return seen


class Poller:
    """psutil in a loop (benchmarks/poller.py)."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.name = f"psutil-every-{interval_s:g}s"

    def missing(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        return None

    def start(self, pid: int, place: Path) -> Watched:
        """Start it and wait until it says that it is there."""
        command = [sys.executable, "-m", "benchmarks.poller", str(pid), str(self.interval_s)]
        output = place / "output"
        return started_to_file(command, place, lambda _: output.read_bytes().startswith(b"ready"))

    def seen(self, place: Path) -> Counter[str]:
        """Count what it printed."""
        with (place / "output").open() as lines:
            return Counter(line.split()[0] for line in lines if " " in line)


def started_to_file(command: list[str], place: Path, is_ready: object) -> Watched:
    """Start a tool that prints, with its output in a file, and wait until it is ready."""
    assert callable(is_ready)
    started = time.monotonic()
    with (place / "output").open("wb") as output, (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=output, stderr=log)
    watched = Watched(process, started)
    watched.ready(is_ready)
    return watched


def environment() -> dict[str, str]:
    """Return the environment in which this checkout's pidtrail is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "agent")}


def no_execsnoop() -> str:
    """Return why bcc's execsnoop is not among the tools."""
    if not Path("/sys/kernel/tracing/kprobe_events").exists():
        return "attaches to kprobes, and this kernel has none (CONFIG_KPROBES)"
    return "prints execs only, and the storm has none"


TOOLS: list[Tool] = [
    Pidtrail(),
    Forkstat(),
    Bpftrace(),
    *(Pidtrail(source) for source in SOURCES if source != "core"),
    Poller(1.0),
    Poller(0.1),
]
