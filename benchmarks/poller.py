"""
What many monitors do: psutil in a loop. `python -m benchmarks.poller PID SECONDS`.

Looks every so many seconds at who descends from PID, and prints a line for each
process that it had not seen before and for each that is not there any more.
"""

from __future__ import annotations

import sys
import time

import psutil


def main() -> None:
    """Poll until SIGINT."""
    root, interval_s = psutil.Process(int(sys.argv[1])), float(sys.argv[2])
    known: set[psutil.Process] = set()
    print("ready", flush=True)
    try:
        while True:
            try:
                there = set(root.children(recursive=True))
            except psutil.NoSuchProcess:
                there = set()
            for process in there - known:
                print(f"fork {process.pid}")
            for process in known - there:
                print(f"exit {process.pid}")
            known = there
            sys.stdout.flush()
            time.sleep(interval_s)
    except KeyboardInterrupt:
        for process in known:
            print(f"exit {process.pid}")


if __name__ == "__main__":
    main()
