"""
pidtrail beside its peers in one storm each: `python -m benchmarks.storm`, or `make bench`.

Prints one JSON document, with the slowdown (benchmarks/slowdown.py) and what an idle agent takes
(benchmarks/idle.py). All figures are of one run on one machine; only the ratios mean something
elsewhere. Nothing else should run meanwhile.
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

from benchmarks.idle import SECONDS as IDLE_SECONDS
from benchmarks.idle import measure_idle
from benchmarks.measure import Storm, Took, Watched
from benchmarks.peers import TOOLS, Pidtrail, Tool, no_execsnoop
from benchmarks.slowdown import BATCH, BLOCKS, measure_slowdown

FORKS = 60_000
ATTACHED = 5


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


def measure_attach(times: int, place: Path) -> dict[str, float]:
    """Return how long pidtrail takes from its start until it is attached, in seconds."""
    other = subprocess.Popen(["sleep", "600"])
    took = []
    try:
        for _ in range(times):
            watched = Pidtrail().start(other.pid, place)
            took.append(watched.cost.attach_s)
            watched.kill()
    finally:
        other.kill()
        other.wait()
    return {"median": round(statistics.median(took), 3), "most": round(max(took), 3)}


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
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="for the slowdown")
    parser.add_argument("--batch", type=int, default=BATCH, help="processes in each of its batches")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
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
        slowdown = attach = None
        if "pidtrail" in tools:
            attach = measure_attach(ATTACHED, place)
            say(f"the slowdown, {options.blocks} blocks")
            slowdown = measure_slowdown(options.blocks, options.batch, place)
        say(f"idle for {options.idle_seconds:g} s")
        idle = measure_idle(options.idle_seconds, place)
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
        "attach_s": attach,
        "slowdown": slowdown,
        "idle": idle,
        "skipped": skipped,
        "budgets": {
            "lost": 0,
            "cpu_ratio_to_bpftrace": 1.0,
            "cpu_ratio_to_forkstat": 0.333,
            "slowdown_traced": 1.05,
            "slowdown_untracked": 1.02,
            "idle_cpu_percent": 0.2,
            "rss_mb": 40,
            "attach_s": 0.3,
        },
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
