"""
What bcc's programs see of the kernel's structures, with offsets from BTF.

The task iterator shows the agent itself first: what the program reads of it must
be what /proc says, or nothing is attached. The same walk then finds the subtree.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from pidtrail.clock import TICK_NS
from pidtrail.errors import SourceUnavailable
from pidtrail.events import Event, Fidelity, Observed, Reap
from pidtrail.sources import bcc_offsets, core, proc, wire
from pidtrail.sources.bcc_program import Walk, compile_text
from pidtrail.sources.bcc_table import Table
from pidtrail.sources.btf import Btf, BtfError
from pidtrail.sources.selftest import Identity, check_roots, compare_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

HOOKS: Final = {
    "sched_process_fork": "on_fork",
    "sched_process_exec": "on_exec",
    "task_rename": "on_rename",
    "sched_process_exit": "on_exit",
    "sched_process_free": "on_free",
    "signal_generate": "on_signal",
    "mark_victim": "on_oom",
}
MIGRATIONS: Final = {"sched_migrate_task": "on_migrate"}
U32: Final = "little"
LOOK_AFTER_NS: Final = core.LOOK_AFTER_NS


class Structures:
    """The programs of bcc_structures.c, loaded and proved, then attached."""

    fidelity: Final = Fidelity(
        has_argv=True,
        has_titles=True,
        has_wstatus=True,
        has_start_ns=True,
        has_counters=True,
        has_signals=True,
        sees_short_lived=True,
        counts_loss=True,
    )
    now_ns: Final = staticmethod(lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def __init__(
        self,
        module: ModuleType,
        transport: Sequence[str],
        next_seq: Callable[[], int],
        *,
        btf: Path = core.BTF,
    ) -> None:
        self.module = module
        self.transport = transport
        self.next_seq = next_seq
        self.btf = btf
        self.parser = wire.Parser(os.sysconf("SC_PAGE_SIZE") // 1024, "bcc")
        self.bpf: Any = None
        self.walker: Walk | None = None
        self.seeded: dict[tuple[int | None, int | None], Observed] = {}
        self.looked_ns = 0
        self.gone: set[bytes] = set()

    def load(self) -> None:
        """
        Compile and load, and prove the offsets. Raises SourceUnavailable.

        As with `core`, the depth of our PID namespace is a guess that only the
        program itself can correct.
        """
        try:
            defines = bcc_offsets.defines(Btf(self.btf.read_bytes()))
        except (OSError, BtfError) as error:
            raise SourceUnavailable(f"no offsets from {self.btf}: {error}") from error
        level = core.guessed_level()
        self.compile(defines, level)
        numbers = [event.ns_pids for kind, event in self.walk() if kind == wire.KIND_SELF]
        if numbers and numbers[0] and len(numbers[0]) - 1 != level:
            self.close()
            self.compile(defines, len(numbers[0]) - 1)
        found = [event for kind, event in self.walk() if kind == wire.KIND_SELF]
        read: list[Identity] = [(event.pid, event.ppid, event.start_ticks) for event in found]
        compare_identity(read, (os.getpid(), os.getppid() or None, proc.start_ticks(os.getpid())))

    def compile(self, offsets: Sequence[str], level: int) -> None:
        """Compile for an agent in a PID namespace of depth `level`."""
        agent = {
            "AGENT_LEVEL": level,
            "AGENT_PID": os.getpid(),
            "AGENT_NS": core.pid_namespace(),
        }
        defines = [*offsets, *self.transport, *(f"-D{name}={n}" for name, n in agent.items())]
        self.bpf = compile_text(self.module, "bcc_structures", defines)
        self.walker = Walk(self.module, self.bpf)

    def table(self, name: str) -> Table:
        """Return a map."""
        assert self.walker is not None  # noqa: S101 (load comes first)
        return Table(self.walker.lib, self.bpf[name.encode()])

    def attach(self, roots: Sequence[int], *, migrations: bool) -> None:
        """Attach, then walk until a walk adds nobody. Raises SourceUnavailable."""
        for hook, function in (HOOKS | (MIGRATIONS if migrations else {})).items():
            self.bpf.attach_raw_tracepoint(tp=hook.encode(), fn_name=function.encode())
        self.follow(roots)

    def follow(self, roots: Sequence[int]) -> None:
        """Add processes and all below them to the subtree. Raises SourceUnavailable."""
        named = self.table("roots")
        for pid in roots:
            named.set(pid.to_bytes(4, U32), pid.to_bytes(4, U32))
        self.seed()
        # A later walk would take whoever has the number by then for the root.
        for pid in roots:
            named.delete(pid.to_bytes(4, U32))
        check_roots(roots, self.seeded)

    def seed(self) -> None:
        """Walk the task list until a walk adds nobody. Raises SourceUnavailable."""
        added, zero = self.table("seeded"), bytes(4)
        for _ in range(core.MAX_WALKS):
            added.set(zero, bytes(8))
            self.seeded.update(self.traced())
            if added.get(zero, 8) == bytes(8):
                return
        raise SourceUnavailable("the process tree grows faster than it can be read")

    def walk(self) -> list[tuple[int, Observed]]:
        """Return (wire kind, record) of each traced process and of the agent."""
        assert self.walker is not None  # noqa: S101 (load comes first)
        data, size = self.walker.read(), wire.TASK.size
        records = []
        for offset in range(0, len(data), size):
            event = self.parser.parse(data, offset, size, 0)
            assert isinstance(event, Observed)  # noqa: S101 (the iterator writes nothing else)
            records.append((int.from_bytes(data[offset : offset + 4], U32), event))
        return records

    def traced(self) -> dict[tuple[int | None, int | None], Observed]:
        """Return what a walk shows of each traced process, by its identity."""
        return {
            (event.pid, event.start_ns): event
            for kind, event in self.walk()
            if kind == wire.KIND_TASK
        }

    def snapshot(self) -> list[Event]:
        """Return who is traced now, and the first time also who ended since `attach` found it."""
        found = {**self.seeded, **self.traced()}
        self.seeded.clear()
        events: list[Event] = []
        for event in found.values():
            if event.pid is None:
                continue
            argv, cgroup = proc.argv(event.pid), proc.cgroup(event.pid)
            known = proc.start_ticks(event.pid) == event.start_ticks
            events.append(
                structs.replace(
                    event,
                    seq=self.next_seq(),
                    argv=argv if known else None,
                    cgroup=cgroup if known else None,
                )
            )
        return events

    def complete(self, event: Event) -> Event:
        """Return a record with what must be joined: here nothing."""
        return event

    def arrange(self, events: list[Event]) -> list[Event]:
        """Return records in their order: here as they came."""
        return events

    def silent_reaps(self, now_ns: int, *, last: bool = False) -> list[Event]:
        """Return the reapings that were not told: gone at two looks, or at the last."""
        if not last and now_ns - self.looked_ns < LOOK_AFTER_NS:
            return []
        self.looked_ns = now_ns
        zombies, old = self.table("zombies"), {}
        for key in zombies.keys():  # noqa: SIM118 (bytes of the kernel's, not a dictionary)
            value = zombies.get(key, wire.ZOMBIE.size)
            ended_ns, pid, _ = wire.ZOMBIE.unpack(value) if value is not None else (now_ns, 0, 0)
            if last or now_ns - ended_ns > LOOK_AFTER_NS:
                old[key] = pid
        there = {(event.pid, event.start_ns) for _, event in self.walk()} if old else set()
        gone = {
            key
            for key, pid in old.items()
            if (pid or None, wire.PROCESS_KEY.unpack(key)[0]) not in there
        }
        events: list[Event] = []
        for key in gone if last else gone & self.gone:
            # Whoever deletes it reports it: this, or on_free in the meantime.
            if zombies.delete(key):
                start_ns = wire.PROCESS_KEY.unpack(key)[0]
                seq, pid = self.next_seq(), old[key] or None
                events.append(Reap(seq, now_ns, "bcc", pid, start_ns // TICK_NS, start_ns))
        self.gone = gone - self.gone
        return events

    def close(self) -> None:
        """Detach and unload. May be called twice."""
        if self.walker is not None:
            self.walker.close()
            self.walker = None
        if self.bpf is not None:
            self.bpf.cleanup()
            self.bpf = None
