"""
pidtrail beside its peers in one storm each: `python -m benchmarks.storm`, or `make bench`.

Prints one JSON document. All figures are of one run on one machine; only the
ratios mean something elsewhere. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import Storm, Took, Watched
from benchmarks.peers import TOOLS, Pidtrail, Tool, no_execsnoop

FORKS = 60_000
PAIRED_FORKS = 10_000
ROUNDS = 5


def say(what: str) -> None:
    """Tell a person what is going on; stdout is for the JSON."""
    print(f"==> {what}", file=sys.stderr, flush=True)


def watched_storm(tool: Tool, forks: int, width: int, place: Path) -> tuple[Watched, Took]:
    """Run one storm under one tool; return the tool, ended, and how long the storm took."""
    storm = Storm(forks, width)
    watched: Watched | None = None
    try:
        watched = tool.start(storm.pid, place)
        took = storm.run()
        watched.stop()
    finally:
        storm.kill()
        if watched is not None:
            watched.kill()
    return watched, took


def measure_tool(tool: Tool, forks: int, width: int, place: Path) -> dict[str, Any]:
    """Return what one tool took in a storm of its own, and what it saw of it."""
    watched, took = watched_storm(tool, forks, width, place)
    cost, seen, events = watched.cost, tool.seen(place), 2 * forks
    return {
        "cpu_us_per_event": round((cost.cpu_ns - cost.cpu_before_ns) / events / 1000, 3),
        "cpu_us_per_event_with_start": round(cost.cpu_ns / events / 1000, 3),
        "cpu_s": round(cost.cpu_ns / 1e9, 3),
        "storm_s": round(took.wall_ns / 1e9, 3),
        "events_per_s": round(events / (took.wall_ns / 1e9)),
        "seen": dict(sorted(seen.items())),
        # Others' processes are in the peers' counts too, so theirs may hide a loss, never make one.
        "lost": max(0, forks - seen["fork"]) + max(0, forks - seen["exit"]),
        "reported_lost": seen["lost"],
        "attach_s": round(cost.attach_s, 3),
        "peak_rss_mb": round(cost.peak_kib / 1024, 1),
        "rss_at_end_mb": round(cost.rss_kib / 1024, 1),
        "wstatus": cost.wstatus,
    }


def bare_storm(forks: int, width: int) -> Took:
    """Return how long a storm takes that nobody watches."""
    storm = Storm(forks, width)
    try:
        return storm.run()
    finally:
        storm.kill()


def untracked_storm(forks: int, width: int, place: Path) -> tuple[Took, float]:
    """Return how long a storm takes while pidtrail follows another, and its time to attach."""
    other = subprocess.Popen(["sleep", "600"])
    watched: Watched | None = None
    try:
        watched = Pidtrail().start(other.pid, place)
        took = bare_storm(forks, width)
        watched.stop()
    finally:
        if watched is not None:
            watched.kill()
        other.kill()
        other.wait()
    return took, watched.cost.attach_s


def measure_slowdown(rounds: int, forks: int, width: int, place: Path) -> dict[str, Any]:
    """
    Compare traced and untracked storms each with the bare ones just before and after.

    So a drift of the machine hits both sides. The middle bare storm of a round beside
    the other two is what this comparison makes of no difference at all.
    """
    wall: dict[str, list[float]] = {"traced": [], "untracked": [], "nobody_watching": []}
    cpu: dict[str, list[float]] = {"traced": [], "untracked": [], "nobody_watching": []}
    attach = []
    for number in range(rounds):
        say(f"slowdown, round {number + 1} of {rounds}")
        first = bare_storm(forks, width)
        watched, traced = watched_storm(Pidtrail(), forks, width, place)
        middle = bare_storm(forks, width)
        untracked, attached = untracked_storm(forks, width, place)
        last = bare_storm(forks, width)
        attach += [watched.cost.attach_s, attached]
        for name, took, before, after in (
            ("traced", traced, first, middle),
            ("untracked", untracked, middle, last),
            ("nobody_watching", middle, first, last),
        ):
            wall[name].append(2 * took.wall_ns / (before.wall_ns + after.wall_ns))
            cpu[name].append(2 * took.cpu_ns / (before.cpu_ns + after.cpu_ns))
    return {
        "forks": forks,
        "rounds": rounds,
        "wall": {name: summary(values) for name, values in wall.items()},
        "storms_own_cpu": {name: summary(values) for name, values in cpu.items()},
        "attach_s": summary(attach),
    }


def summary(values: list[float]) -> dict[str, Any]:
    """Return the median and all values."""
    return {
        "median": round(statistics.median(values), 3),
        "all": [round(value, 3) for value in values],
    }


def ratio(tools: dict[str, Any], peer: str) -> float | None:
    """Return pidtrail's CPU per event by a peer's, or None if one was not measured."""
    ours, theirs = tools.get("pidtrail"), tools.get(peer)
    if not ours or not theirs or not theirs["cpu_us_per_event"]:
        return None
    return round(ours["cpu_us_per_event"] / theirs["cpu_us_per_event"], 3)


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description="Measure pidtrail beside its peers.")
    parser.add_argument("--forks", type=int, default=FORKS, help="processes in each tool's storm")
    parser.add_argument("--paired-forks", type=int, default=PAIRED_FORKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds for the slowdown")
    parser.add_argument("--width", type=int, default=1, help="processes alive at a time")
    return parser.parse_args()


def main() -> None:
    """Measure everything and print the document."""
    options = parse_arguments()
    tools: dict[str, Any] = {}
    skipped = {"execsnoop": no_execsnoop()}
    with tempfile.TemporaryDirectory(prefix="pidtrail-bench-") as name:
        place = Path(name)
        for tool in TOOLS:
            if (why := tool.missing()) is not None:
                skipped[tool.name] = why
                continue
            say(f"a storm of {options.forks} under {tool.name}")
            tools[tool.name] = measure_tool(tool, options.forks, options.width, place)
        slowdown = (
            measure_slowdown(options.rounds, options.paired_forks, options.width, place)
            if "pidtrail" in tools
            else None
        )
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "storm": {
            "forks": options.forks,
            "lifecycle_events": 2 * options.forks,
            "width": options.width,
        },
        "tools": tools,
        "cpu_ratio_to": {peer: ratio(tools, peer) for peer in ("forkstat", "bpftrace")},
        "slowdown": slowdown,
        "skipped": skipped,
        "budgets": {
            "lost": 0,
            "cpu_ratio_to_bpftrace": 1.0,
            "cpu_ratio_to_forkstat": 0.333,
            "slowdown_traced": 1.05,
            "slowdown_untracked": 1.02,
            "rss_mb": 40,
            "attach_s": 0.3,
        },
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
