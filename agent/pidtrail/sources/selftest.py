"""What a source that reads the kernel's structures must show before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidtrail.errors import SourceUnavailable
from pidtrail.sources import proc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Identity = tuple[int | None, int | None, int | None]


def check_roots(roots: Sequence[int], seeded: Iterable[tuple[int | None, int | None]]) -> None:
    """Raise SourceUnavailable for a root that lives and was not found: nothing would be told."""
    found = {pid for pid, _ in seeded}
    for pid in roots:
        if pid not in found and proc.start_ticks(pid) is not None:
            raise SourceUnavailable(f"the kernel's task list does not show process {pid} to BPF")


def compare_identity(read: list[Identity], true: Identity) -> None:
    """Raise SourceUnavailable unless BPF read this process once, and as /proc shows it."""
    if read != [true]:
        raise SourceUnavailable(
            f"self-test failed: BPF reads (pid, ppid, start) {read}, /proc says {true}",
            "the kernel's structures are not where its BTF says",
        )
