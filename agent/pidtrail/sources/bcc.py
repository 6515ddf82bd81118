"""
Source `bcc`: BPF programs compiled here, by the distribution's bcc.

Theory of operation
-------------------
For hosts that have bcc and headers and where `core` does not open. The programs
are of two kinds. With offsets from BTF that the agent proved on itself they read
the kernel's structures and see what `core` sees. Else they read nothing but the
tracepoints' own arguments, and /proc adds what it still can. Headers of another
kernel do no harm to either: no structure is read by them.

Records come through the BPF ring buffer, or through perf buffers where the kernel
has none; those are per CPU, so records pass a window that puts them in order.
Either way the programs count what found no room, and `lost` says it.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from pidtrail.errors import SourceUnavailable
from pidtrail.events import Event, Fidelity, Lost
from pidtrail.sources import capabilities, wire
from pidtrail.sources.bcc_arguments import Arguments
from pidtrail.sources.bcc_program import has_ring, load_module
from pidtrail.sources.bcc_structures import Structures
from pidtrail.sources.reorder import Reorder
from pidtrail.sources.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

RING_BYTES: Final = 8 << 20
PERF_PAGES: Final = 512
"""Per CPU; 2 MiB with pages of 4 KiB."""
NO_WAKE_UP: Final = 1 << 20
"""Records until the kernel wakes us: never before we look by ourselves."""
TIME_AT: Final = 8
"""Where ts_boot_ns is in struct pt_head."""


class BccSource:
    """
    Two kinds of bcc programs over two transports; see sources/source.py for the methods.

    `transport` is `ring` or `perf`, `structures` whether to read the kernel's
    structures; None is the better one that works.
    """

    name = "bcc"

    def __init__(
        self,
        *,
        transport: str | None = None,
        structures: bool | None = None,
        arguments: type[Arguments] = Arguments,
    ) -> None:
        self.transport = transport
        self.structures = structures
        self.arguments = arguments
        self.fidelity: Fidelity = (Arguments if structures is False else Structures).fidelity
        self.view: Structures | Arguments | None = None
        self.ring: Ring | None = None
        self.lib: Any = None
        self.reorder: Reorder[bytes] = Reorder()
        self.seq = 0
        self.checked_ns = 0
        self.full = self.map_full = 0
        self.said: list[str] = []

    def open(self, roots: Sequence[int], *, migrations: bool = False) -> None:
        """Attach and follow `roots`. Raises SourceUnavailable, with nothing left attached."""
        missing = capabilities.missing("CAP_BPF", "CAP_PERFMON")
        if missing:
            raise SourceUnavailable(
                f"missing {' and '.join(missing)}", "run as root; `pidtrail doctor` tells more"
            )
        self.reorder = Reorder()
        self.full = self.map_full = 0
        module = load_module()
        if self.transport is None:
            self.transport = "ring" if has_ring(module) else "perf"
        try:
            self.load(module)
            self.connect()
            assert self.view is not None  # noqa: S101 (load set it)
            self.view.attach(roots, migrations=migrations)
        except BaseException:
            self.close()
            raise

    def follow(self, roots: Sequence[int]) -> None:
        """Add processes and all below them to the subtree. Raises SourceUnavailable."""
        assert self.view is not None  # noqa: S101 (open comes first)
        self.view.follow(roots)

    def load(self, module: ModuleType) -> None:
        """Load the programs that read structures, or else those that read arguments."""
        page = os.sysconf("SC_PAGE_SIZE")
        ring = ["-DPT_RING", f"-DPT_RING_PAGES={RING_BYTES // page}"]
        transport = ring if self.transport == "ring" else []
        refused = None
        if self.structures is not False:
            self.view = Structures(module, transport, self.next_seq)
            try:
                self.view.load()
            except SourceUnavailable as error:
                self.view.close()
                if self.structures:
                    raise
                refused = error
            else:
                return
        self.view = self.arguments(module, transport, self.next_seq)
        try:
            self.view.load()
        except SourceUnavailable as error:
            if refused is None:
                raise
            raise SourceUnavailable(f"{refused}; and {error.message}", error.hint) from error
        self.fidelity = self.view.fidelity
        if refused is not None:
            self.said.append(f"only the tracepoints' arguments are read: {refused}")

    def connect(self) -> None:
        """Open the transport."""
        assert self.view is not None  # noqa: S101 (load comes first)
        self.lib = self.view.table("losses").lib
        self.checked_ns = self.view.now_ns()
        events = self.view.bpf[b"events"]
        if self.transport == "ring":
            self.ring = Ring(events.map_fd, RING_BYTES)
            return
        # What the callback for losses is told, the programs have counted already.
        events.open_perf_buffer(
            self.received, PERF_PAGES, lost_cb=lambda _count: None, wakeup_events=NO_WAKE_UP
        )

    def received(self, _cpu: int, data: Any, size: int) -> None:
        """Take one record out of a perf buffer."""
        record = ctypes.string_at(data, size)
        self.reorder.push(int.from_bytes(record[TIME_AT : TIME_AT + 8], "little"), record)

    def snapshot(self) -> list[Event]:
        """Return one `observed` record per traced process."""
        assert self.view is not None  # noqa: S101 (open comes first)
        return self.view.snapshot()

    def read(self) -> list[Event]:
        """Return one batch of records, and `lost` if something found no room."""
        view = self.view
        assert view is not None  # noqa: S101 (open comes first)
        now_ns = view.now_ns()
        parse, complete = view.parser.parse, view.complete
        if self.ring is not None:
            data, records = self.ring.read()
            found = [complete(parse(data, offset, length, 0)) for offset, length in records]
        else:
            view.bpf.perf_buffer_consume()
            found = self.ripe(now_ns)
        events = self.numbered(found)
        self.append_losses(events, now_ns)
        events += view.silent_reaps(now_ns)
        return events

    def ripe(self, now_ns: int) -> list[Event]:
        """Return what has passed the window in which records of several CPUs are put in order."""
        view = self.view
        assert view is not None  # noqa: S101 (open comes first)
        parse, complete = view.parser.parse, view.complete
        return [complete(parse(record, 0, len(record), 0)) for record in self.reorder.pop(now_ns)]

    def numbered(self, found: list[Event]) -> list[Event]:
        """Return records as they go into the stream."""
        assert self.view is not None  # noqa: S101 (open comes first)
        return [structs.replace(event, seq=self.next_seq()) for event in self.view.arrange(found)]

    def last(self) -> list[Event]:
        """Return what still waited for its order, and the reapings that were not told."""
        view = self.view
        assert view is not None  # noqa: S101 (open comes first)
        now_ns = view.now_ns()
        events = self.numbered(self.ripe(now_ns + self.reorder.window_ns))
        events += view.silent_reaps(now_ns, last=True)
        return events

    def append_losses(self, events: list[Event], now_ns: int) -> None:
        """Turn what the programs counted as dropped since the last look into `lost` records."""
        assert self.view is not None  # noqa: S101 (open comes first)
        value = self.view.table("losses").get(bytes(4), wire.LOSSES.size)
        full, last_ns, map_full = wire.LOSSES.unpack(value) if value is not None else (0, 0, 0)
        if full > self.full:
            dropped, self.full = full - self.full, full
            self.seq += dropped
            events.append(self.lost(dropped, last_ns, f"{self.transport} buffer full"))
        if map_full > self.map_full:
            dropped, self.map_full = map_full - self.map_full, map_full
            events.append(self.lost(None, now_ns, f"{dropped} processes beyond the limit"))
        self.checked_ns = now_ns

    def lost(self, count: int | None, to_ns: int, reason: str) -> Lost:
        """Return a `lost` record that covers the span since the last look."""
        self.seq += 1
        return Lost(
            self.seq, to_ns, self.name,
            count=count, from_ns=min(self.checked_ns, to_ns), to_ns=to_ns, reason=reason,
        )  # fmt: skip

    def problems(self) -> list[str]:
        """Return once what could not be had, and why."""
        said, self.said = self.said, []
        return said

    def next_seq(self) -> int:
        """Take the next number of the stream, for a record that comes from elsewhere."""
        self.seq += 1
        return self.seq

    def close(self) -> None:
        """Detach and unload. May be called twice."""
        if self.ring is not None:
            self.ring.close()
            self.ring = None
        if self.view is not None:
            self.view.close()
            self.view = None
