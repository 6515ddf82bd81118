"""
An agent that can be switched on and off at once: `python -m benchmarks.switched PID FILE`.

What `pidtrail trace --pid PID -o FILE` does with source `core`, but its programs are attached
and detached on command, so that what they cost can be compared within a fraction of a second.
Commands are lines on stdin, each answered by a line: `on`, `off`, and `bpf`, answered by a JSON
object of what the kernel counted of each program: [nanoseconds, runs].
"""

from __future__ import annotations

import ctypes
import json
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from pidtrail.runtime import QUIET_SECONDS, TURN_SECONDS, Session, make_header
from pidtrail.sources.core import CoreSource
from pidtrail.store import Recorder

RUN_TIME_AT, RUN_COUNT_AT = 192, 200
"""Offsets of run_time_ns and run_cnt in struct bpf_prog_info (include/uapi/linux/bpf.h)."""
BPF_STATS_RUN_TIME = 0


class Switched(CoreSource):
    """The source, whose programs are not always attached."""

    on = True

    def check_links(self) -> None:
        """Miss them only when they should be there."""
        if self.on:
            super().check_links()

    def switch(self, *, on: bool) -> None:
        """Attach all programs or none."""
        if on == self.on:
            return
        self.on = on
        for bpf_object in self.objects:
            if on:
                bpf_object.attach()
                continue
            for link in bpf_object.links:
                bpf_object.so.bpf_link__destroy(link)
            bpf_object.links.clear()

    def costs(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield each program's name with its run time in nanoseconds and its runs."""
        for bpf_object in self.objects:
            for name, program in bpf_object.programs():
                info = ctypes.create_string_buffer(256)
                size = ctypes.c_uint32(len(info))
                fd = bpf_object.so.bpf_program__fd(program)
                if bpf_object.so.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)):
                    raise OSError(f"the kernel tells nothing of program {name}")
                run_ns, runs = (
                    int.from_bytes(info.raw[at : at + 8], "little")
                    for at in (RUN_TIME_AT, RUN_COUNT_AT)
                )
                yield name, (run_ns, runs)


def main() -> None:
    """Obey until stdin ends."""
    pid, path = int(sys.argv[1]), Path(sys.argv[2])
    source = Switched()
    source.open([pid])
    session = Session(source, [Recorder(path, make_header(source, [pid], {}))])
    session.start()
    statistics = None
    pause = TURN_SECONDS
    print("attached", flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], pause)
        pause = TURN_SECONDS if session.turn() else QUIET_SECONDS
        if not ready:
            continue
        command = sys.stdin.readline().strip()
        if command == "bpf":
            if statistics is None:
                # As long as the descriptor is open, the kernel takes the time of each run.
                statistics = source.objects[0].so.bpf_enable_stats(BPF_STATS_RUN_TIME)
                if statistics < 0:
                    raise OSError("the kernel does not take the time of its programs")
            print(json.dumps(dict(source.costs())), flush=True)
        elif command in {"on", "off"}:
            source.switch(on=command == "on")
            while session.turn():
                pass
            print(command, flush=True)
        else:
            break
    session.finish()


if __name__ == "__main__":
    main()
