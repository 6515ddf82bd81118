"""
Source `core`: CO-RE eBPF programs through the system's libbpf.

Theory of operation
-------------------
Three objects share one ring and one set of traced processes. Order of opening:
load, self-test, attach, seed, snapshot, drain. The programs are attached before
the task list is walked, and the walk is repeated until it adds nothing, so a
tree that forks while we attach has no gap: who is born before the walk sees its
parent is found by the walk, who is born after is found by the fork program. Seen
twice is no harm, the key is the same.

The ring is read on the runtime's timer; the programs never wake us. What found
no room in it was counted in the kernel, becomes a `lost` record, and leaves a
hole in `seq` of exactly that size.
"""

from __future__ import annotations

import ctypes
import os
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import structs

from pidtrail.clock import TICK_NS
from pidtrail.errors import SourceUnavailable
from pidtrail.events import INITIAL_PID_NS, Event, Fidelity, Lost, Observed, Reap
from pidtrail.sources import capabilities, proc, wire
from pidtrail.sources.libbpf import BpfObject, Library
from pidtrail.sources.ring import Ring
from pidtrail.sources.selftest import Identity, check_roots, compare_identity

if TYPE_CHECKING:
    from collections.abc import Sequence

BTF: Final = Path("/sys/kernel/btf/vmlinux")
RING_BYTES: Final = 8 << 20
SHARED_MAPS: Final = ("events", "subtree", "zombies", "losses")
MAX_WALKS: Final = 50
LOOK_AFTER_NS: Final = 1_000_000_000
MISSES_AT: Final = 208
"""Offset of recursion_misses in struct bpf_prog_info (include/uapi/linux/bpf.h, since 5.12)."""


class CoreSource:
    """eBPF on kernel 5.8 and later with BTF; see sources/source.py for the methods."""

    name = "core"
    fidelity = Fidelity(
        has_argv=True,
        has_titles=True,
        has_wstatus=True,
        has_start_ns=True,
        has_counters=True,
        has_signals=True,
        sees_short_lived=True,
        counts_loss=True,
    )

    def __init__(self) -> None:
        self.objects: list[BpfObject] = []
        self.ring: Ring | None = None
        self.parser = wire.Parser(os.sysconf("SC_PAGE_SIZE") // 1024)
        self.seq = 0
        self.checked_ns = 0
        self.ring_full = self.map_full = self.skipped_runs = 0
        self.looked_ns = 0
        self.gone: set[bytes] = set()
        self.seeded: dict[tuple[int | None, int | None], Observed] = {}

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """Attach and follow `roots`. Raises SourceUnavailable, with nothing left attached."""
        check_requirements()
        try:
            self.load(migrations=migrations)
            self.self_test()
            for bpf_object in self.objects:
                bpf_object.attach()
            self.follow(roots)
        except BaseException:
            self.close()
            raise

    def follow(self, roots: Sequence[int]) -> None:
        """Add processes and all below them to the subtree. Raises SourceUnavailable."""
        self.add_roots(roots)
        self.seed()
        # A later walk would take whoever has the number by then for the root.
        for pid in roots:
            self.objects[0].delete("roots", pid.to_bytes(4, "little"))
        check_roots(roots, self.seeded)

    def load(self, *, migrations: bool) -> None:
        """
        Load the objects; the first one's maps serve all.

        /proc shows the depth of our PID namespace only from the one it was mounted in, but BPF
        sees it; where the guess was wrong the first object is loaded again.
        """
        library = Library()
        level = guessed_level()
        self.load_object(library, "lifecycle", level)
        numbers = [event.ns_pids for kind, event in self.walk() if kind == wire.KIND_SELF]
        if numbers and numbers[0] and len(numbers[0]) - 1 != level:
            level = len(numbers[0]) - 1
            self.objects.pop().close()
            self.load_object(library, "lifecycle", level)
        for name in ["signals", *(["sched"] if migrations else [])]:
            self.load_object(library, name, level)
        self.ring = Ring(self.objects[0].map_fd("events"), RING_BYTES)
        self.checked_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def load_object(self, library: Library, name: str, level: int) -> None:
        """Load one object for an agent in a PID namespace of depth `level`."""
        bpf_object = BpfObject(library, object_path(name))
        self.objects.append(bpf_object)
        configure(bpf_object, level)
        if len(self.objects) > 1:
            bpf_object.share_maps(self.objects[0], SHARED_MAPS)
        bpf_object.load()

    def self_test(self) -> None:
        """
        Compare what BPF reads of this very process with /proc, and refuse to run on nonsense.

        Offsets that do not fit the kernel read garbage without any error (seen
        with headers of another kernel), so this is the one proof there is.
        """
        found = [event for kind, event in self.walk() if kind == wire.KIND_SELF]
        read: list[Identity] = [(event.pid, event.ppid, event.start_ticks) for event in found]
        compare_identity(read, self.identity())

    def identity(self) -> Identity:
        """Return who this process is by its own account."""
        return os.getpid(), os.getppid() or None, proc.start_ticks(os.getpid())

    def add_roots(self, roots: Sequence[int]) -> None:
        """Name the processes to start from."""
        fd = self.objects[0].map_fd("roots")
        for pid in roots:
            key = value = ctypes.c_uint32(pid)
            code = self.objects[0].so.bpf_map_update_elem(
                fd, ctypes.byref(key), ctypes.byref(value), 0
            )
            if code:
                raise self.objects[0].library.failed(f"cannot follow process {pid}", code)

    def seed(self) -> None:
        """Walk the task list until a walk adds no process to the subtree."""
        for _ in range(MAX_WALKS):
            before = self.objects[0].variable()
            self.seeded.update(self.traced())
            if self.objects[0].variable() == before:
                return
        raise SourceUnavailable("the process tree grows faster than it can be read")

    def walk(self) -> list[tuple[int, Observed]]:
        """Return (wire kind, record) of each traced process and of the agent."""
        data = self.objects[0].iterate("walk_tasks")
        size = wire.TASK.size
        records = []
        for offset in range(0, len(data), size):
            event = self.parser.parse(data, offset, size, 0)
            assert isinstance(event, Observed)  # noqa: S101 (the iterator writes nothing else)
            records.append((int.from_bytes(data[offset : offset + 4], "little"), event))
        return records

    def traced(self) -> dict[tuple[int | None, int | None], Observed]:
        """Return what a walk shows of each traced process, by its identity."""
        return {
            (event.pid, event.start_ns): event
            for kind, event in self.walk()
            if kind == wire.KIND_TASK
        }

    def snapshot(self) -> list[Event]:
        """
        Return the traced processes; argv and cgroup are joined from /proc.

        As they are now, and the first time also those that ended since `open` found them: their
        end is on its way, and would be an end without a beginning.
        """
        events: list[Event] = []
        found = {**self.seeded, **self.traced()}
        self.seeded.clear()
        for event in found.values():
            if event.pid is None:
                continue
            self.seq += 1
            argv, cgroup = proc.argv(event.pid), proc.cgroup(event.pid)
            known = proc.start_ticks(event.pid) == event.start_ticks
            events.append(
                structs.replace(
                    event,
                    seq=self.seq,
                    argv=argv if known else None,
                    cgroup=cgroup if known else None,
                )
            )
        return events

    def read(self) -> list[Event]:
        """Return one batch of the ring, and a `lost` record if something found no room in it."""
        assert self.ring is not None  # noqa: S101 (open comes first)
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        data, records = self.ring.read()
        parse = self.parser.parse
        seq = self.seq
        events: list[Event] = []
        spoiled = []
        for offset, length in records:
            seq += 1
            try:
                events.append(parse(data, offset, length, seq))
            except wire.WireError as error:
                spoiled.append(error)
        self.seq = seq
        if spoiled:
            events.append(self.lost(len(spoiled), now_ns, str(spoiled[0])))
        self.append_losses(events, now_ns)
        return events

    def append_losses(self, events: list[Event], now_ns: int) -> None:
        """Turn what the kernel counted as dropped since the last look into `lost` records."""
        ring_full, last_ns, map_full = self.losses()
        if ring_full > self.ring_full:
            dropped = ring_full - self.ring_full
            self.ring_full = ring_full
            self.seq += dropped
            events.append(self.lost(dropped, last_ns, "ring buffer full"))
        if map_full > self.map_full:
            dropped, self.map_full = map_full - self.map_full, map_full
            reason = f"{dropped} processes beyond the {65_536} that can be followed at once"
            events.append(self.lost(None, now_ns, reason))
        if now_ns - self.looked_ns > LOOK_AFTER_NS:
            self.looked_ns = now_ns
            self.check_links()
            misses = sum(recursion_misses(bpf_object) for bpf_object in self.objects)
            if misses > self.skipped_runs:
                reason = f"the kernel skipped {misses - self.skipped_runs} nested program runs"
                self.skipped_runs = misses
                events.append(self.lost(None, now_ns, reason))
            events += self.silent_reaps(now_ns)
        self.checked_ns = now_ns

    def last(self) -> list[Event]:
        """Return the reapings that the kernel did not tell of by now."""
        return self.silent_reaps(time.clock_gettime_ns(time.CLOCK_BOOTTIME), last=True)

    def check_links(self) -> None:
        """Raise SourceUnavailable if a program is not attached any more: silence is no proof."""
        for bpf_object in self.objects:
            lost = bpf_object.lost_links()
            if lost:
                raise SourceUnavailable(f"{lost} programs of {bpf_object.name} are detached")

    def silent_reaps(self, now_ns: int, *, last: bool = False) -> list[Event]:
        """
        Return the reapings of those who are gone from the task list without a reap record.

        Linux 6.18 frees about one in a thousand without raising sched_process_free. Gone at two
        looks in a row, so that one whose grace period is just running is left to the tracepoint;
        at the `last` look there is nobody to leave it to.
        """
        events: list[Event] = []
        zombies = self.objects[0].entries("zombies", wire.PROCESS_KEY.size, wire.ZOMBIE.size)
        old = {
            key: wire.ZOMBIE.unpack(value)
            for key, value in zombies
            if last or now_ns - wire.ZOMBIE.unpack(value)[0] > LOOK_AFTER_NS
        }
        there = {(event.pid, event.start_ns) for _, event in self.walk()} if old else set()
        gone = {
            key
            for key, (_, pid, _) in old.items()
            if (pid or None, wire.PROCESS_KEY.unpack(key)[0]) not in there
        }
        for key in gone if last else gone & self.gone:
            # Whoever deletes it reports it: this, or on_free in the meantime.
            if self.objects[0].delete("zombies", key):
                self.seq += 1
                start_ns, pid = wire.PROCESS_KEY.unpack(key)[0], old[key][1] or None
                ticks = start_ns // TICK_NS
                events.append(Reap(self.seq, now_ns, self.name, pid, ticks, start_ns))
        self.gone = gone - self.gone
        return events

    def losses(self) -> tuple[int, int, int]:
        """Return the kernel's counters: ring full, time of the last such drop, map full."""
        key, value = ctypes.c_uint32(0), ctypes.create_string_buffer(wire.LOSSES.size)
        self.objects[0].so.bpf_map_lookup_elem(
            self.objects[0].map_fd("losses"), ctypes.byref(key), value
        )
        ring_full, last_ns, map_full = wire.LOSSES.unpack(value.raw)
        return ring_full, last_ns, map_full

    def lost(self, count: int | None, to_ns: int, reason: str) -> Lost:
        """Return a `lost` record that covers the span since the last look."""
        self.seq += 1
        return Lost(
            self.seq, to_ns, self.name, count=count, from_ns=self.checked_ns, to_ns=to_ns,
            reason=reason,
        )  # fmt: skip

    def next_seq(self) -> int:
        """Take the next number of the stream, for a record that comes from elsewhere."""
        self.seq += 1
        return self.seq

    def close(self) -> None:
        """Detach and unload. May be called twice."""
        if self.ring is not None:
            self.ring.close()
            self.ring = None
        for bpf_object in reversed(self.objects):
            bpf_object.close()
        self.objects.clear()


def object_path(name: str) -> Path:
    """Return where a compiled object is. Raises SourceUnavailable if it was never built."""
    path = Path(str(resources.files("pidtrail"))) / "bpf" / f"{name}.bpf.o"
    if not path.is_file():
        raise SourceUnavailable(
            f"{path} is missing", "build it with `make bpf`, or install a wheel, which carries it"
        )
    return path


def check_requirements() -> None:
    """Raise SourceUnavailable for what can be told before trying."""
    if not BTF.exists():
        raise SourceUnavailable(
            f"this kernel has no type information ({BTF})", "CONFIG_DEBUG_INFO_BTF"
        )
    missing = capabilities.missing("CAP_BPF", "CAP_PERFMON")
    if missing:
        raise SourceUnavailable(
            f"missing {' and '.join(missing)}", "run as root; `pidtrail doctor` tells more"
        )


def configure(bpf_object: BpfObject, level: int) -> None:
    """Set .rodata before load, after checking that the object was built from this event.h."""
    section = bpf_object.section(".rodata")
    abi_version = wire.CONFIG.unpack_from(section.raw)[0]
    if abi_version != wire.ABI_VERSION:
        raise SourceUnavailable(
            f"{bpf_object.name} speaks wire version {abi_version}, this program {wire.ABI_VERSION}",
            "build it again with `make bpf`",
        )
    wire.CONFIG.pack_into(section, 0, abi_version, os.getpid(), level, pid_namespace())


def pid_namespace() -> int:
    """Return the inode of our PID namespace."""
    return Path("/proc/self/ns/pid").stat().st_ino


def guessed_level() -> int:
    """Return the depth of our PID namespace: right in the first, in most others 1."""
    return 0 if pid_namespace() == INITIAL_PID_NS else 1


def recursion_misses(bpf_object: BpfObject) -> int:
    """
    Return how often the kernel skipped a program because it ran already on that CPU.

    The runs skipped may have been about processes that are not traced, so this
    bounds a loss and does not count it.
    """
    total = 0
    for _, program in bpf_object.programs():
        info = ctypes.create_string_buffer(256)
        size = ctypes.c_uint32(len(info))
        fd = bpf_object.so.bpf_program__fd(program)
        if bpf_object.so.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) == 0:
            total += int.from_bytes(info.raw[MISSES_AT : MISSES_AT + 8], "little")
    return total
