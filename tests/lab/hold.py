"""
A lab in the middle of things: `python -m tests.lab.hold`, to be killed.

Holds a stopped puppet, one that is frozen in a cgroup, and one that waits, and says
who they are on a line of JSON.
"""

from __future__ import annotations

import json
import signal
import sys

from pidtrail.lab.bench import Bench
from pidtrail.lab.freeze import freezer, is_frozen, set_frozen
from pidtrail.lab.identity import state_of


def main() -> None:
    with Bench("core") as bench:
        top = freezer()
        assert top is not None
        place = bench.cgroup(top, "hold")
        stopped, frozen, waiting = bench.fork(), bench.fork(), bench.fork()
        stopped.send(signal.SIGSTOP)
        place.add(frozen.pid)
        set_frozen(place, on=True)
        assert bench.until(lambda: is_frozen(place) and state_of(stopped.pid) == "T")
        pids = {"stopped": stopped.pid, "frozen": frozen.pid, "waiting": waiting.pid}
        print(json.dumps({**pids, "cgroup": str(place.path)}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
