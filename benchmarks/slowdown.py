"""
By how much a storm of fork and exit gets slower under pidtrail: `python -m benchmarks.slowdown`.

Two answers. From outside: many short batches of one storm, in blocks of four in random order
(nobody watching, twice; pidtrail following somebody else; pidtrail following the storm). Each is
compared with the first of its own block, so that a drift of the machine hits both, and the second
with nobody watching shows what the comparison makes of no difference at all. Of these ratios the
median counts, with the interval that 95 % of resamplings give it: it says what it cannot tell.

From inside: the kernel itself takes the time of each run of a program (BPF_ENABLE_STATS), which
other load on the machine does not stretch; beside it, the CPU time of a process of the storm with
its parent's part.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import Took
from tests.programs.build import program

BLOCKS = 60
BATCH = 2000
RESAMPLINGS = 2000
PER_PROCESS = ("on_fork", "on_exit", "on_free", "on_signal")
"""The programs that run once for each process of the storm; SIGCHLD is its signal."""
OFF, AGAIN, UNTRACKED, TRACED = "off", "nobody_watching", "untracked", "traced"
Counts = dict[str, tuple[int, int]]


class Batches:
    """The storm, in batches of `size` processes (tests/programs/batches.c)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.process = subprocess.Popen(
            [str(program("batches"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.read()

    def read(self) -> dict[str, int]:
        """Return the next thing it says."""
        assert self.process.stdout is not None
        said: dict[str, int] = json.loads(self.process.stdout.readline())
        return said

    def run(self) -> Took:
        """Run one batch."""
        assert self.process.stdin is not None
        left, wall_ns, cpu_ns = self.size, 0, 0
        while left > 0:
            tens = min(100, left // 10)
            self.process.stdin.write(bytes([tens]))
            said = self.read()
            left -= tens * 10
            wall_ns, cpu_ns = wall_ns + said["wall_ns"], cpu_ns + said["cpu_ns"]
        return Took(wall_ns, cpu_ns)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class Agent:
    """A tracer of `pid` that can be switched (benchmarks/switched.py); off to begin with."""

    def __init__(self, pid: int, recording: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.switched", str(pid), str(recording)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.ask("off")

    def ask(self, command: str) -> str:
        """Give a command and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        if not (answer := self.process.stdout.readline()):
            raise RuntimeError(f"the agent ended at {command!r}")
        return answer

    def counts(self) -> Counts:
        """Return run time and runs of each program, from the first such question on."""
        counts: Counts = json.loads(self.ask("bpf"))
        return counts

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the bounds of 95 % of the medians of resamplings."""
    chance = random.Random(1)
    medians = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLINGS)
    )
    low, high = medians[RESAMPLINGS // 40], medians[-RESAMPLINGS // 40]
    return {
        "median": round(statistics.median(values), 4),
        "from": round(low, 4),
        "to": round(high, 4),
    }


def one_block(order: Sequence[str], batches: Batches, agents: dict[str, Agent]) -> dict[str, Took]:
    """Run a batch of each kind, in that order."""
    took: dict[str, Took] = {}
    for name in order:
        agent = agents.get(name)
        if agent is not None:
            agent.ask("on")
        took[name] = batches.run()
        if agent is not None:
            # Answered when all is read that the batch left: the next one has no part in it.
            agent.ask("off")
    return took


def from_outside(blocks: int, batches: Batches, agents: dict[str, Agent]) -> dict[str, Any]:
    """Return the ratios to nobody watching, by the clock and in the storm's own CPU time."""
    chance = random.Random(2)
    names = [OFF, AGAIN, UNTRACKED, TRACED]
    all_took = []
    for _ in range(blocks):
        chance.shuffle(names)
        all_took.append(one_block(names, batches, agents))
    return {
        "blocks": blocks,
        "forks_per_batch": batches.size,
        "wall": {
            name: interval([took[name].wall_ns / took[OFF].wall_ns for took in all_took])
            for name in (AGAIN, UNTRACKED, TRACED)
        },
        "storms_own_cpu": {
            name: interval([took[name].cpu_ns / took[OFF].cpu_ns for took in all_took])
            for name in (AGAIN, UNTRACKED, TRACED)
        },
        "process_cpu_us": round(
            statistics.median(took[OFF].cpu_ns for took in all_took) / batches.size / 1000, 2
        ),
    }


def from_inside(blocks: int, batches: Batches, agents: dict[str, Agent]) -> dict[str, Any]:
    """
    Return what the programs take for a process of the storm, in nanoseconds.

    Others fork meanwhile, too. They are untracked, so with the time of such a run known from
    the agent that follows nobody here, their part can be taken away.
    """
    spent: dict[str, Counts] = {}
    for name, agent in agents.items():
        before = agent.counts()
        agent.ask("on")
        for _ in range(blocks):
            batches.run()
        agent.ask("off")
        after = agent.counts()
        spent[name] = {
            one: (after[one][0] - before[one][0], after[one][1] - before[one][1])
            for one in PER_PROCESS
        }
    missed = {one: spent[UNTRACKED][one][0] / spent[UNTRACKED][one][1] for one in PER_PROCESS}
    ours = blocks * batches.size
    hit = {
        one: (ns - (runs - ours) * missed[one]) / ours for one, (ns, runs) in spent[TRACED].items()
    }
    return {
        name: {
            "ns_per_process": round(sum(costs.values())),
            "programs_ns": {one: round(ns) for one, ns in costs.items()},
        }
        for name, costs in ((UNTRACKED, missed), (TRACED, hit))
    }


def measure_slowdown(blocks: int, size: int, place: Path) -> dict[str, Any]:
    """Return both answers, and the share of a process's time that the programs are."""
    with ExitStack() as stack:
        batches = Batches(size)
        stack.callback(batches.close)
        other = subprocess.Popen(["sleep", "600"])
        stack.callback(other.wait)
        stack.callback(other.kill)
        agents = {
            UNTRACKED: Agent(other.pid, place / "untracked.db"),
            TRACED: Agent(batches.process.pid, place / "traced.db"),
        }
        for agent in agents.values():
            stack.callback(agent.close)
        batches.run()
        result = from_outside(blocks, batches, agents)
        inside = from_inside(max(1, blocks // 10), batches, agents)
    for told in inside.values():
        told["slowdown"] = round(1 + told["ns_per_process"] / 1000 / result["process_cpu_us"], 4)
    return {**result, "in_the_kernel": inside}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="By how much a storm gets slower.")
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--batch", type=int, default=BATCH, help="processes in a batch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pidtrail-slowdown-") as name:
        print(json.dumps(measure_slowdown(options.blocks, options.batch, Path(name)), indent=2))


if __name__ == "__main__":
    main()
