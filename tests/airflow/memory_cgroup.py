"""A memory cgroup for the process that is to run out of memory; of version 1 or 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from demo.processes import Identity, StageError, is_alive, own_identity, wait_until

TOP: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "pidtrail-oom"


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """
    Make a cgroup with so many bytes, and remove it; also those of drivers that were killed.

    Raises `StageError` where the host has no memory controller to use.
    """
    top, file = place()
    for left in top.glob(f"{PREFIX}-*"):
        pid, start_ticks = map(int, left.name.split("-")[-2:])
        if not is_alive(Identity(pid, start_ticks)):
            # Somebody of it may still be in there, or another driver be doing the same.
            removed(left)
    cgroup = top / "{}-{}-{}".format(PREFIX, *own_identity())
    cgroup.mkdir()
    try:
        (cgroup / file).write_text(str(limit))
        yield cgroup
    finally:
        wait_until(lambda: removed(cgroup), within_s=10, what="the end of the memory cgroup")


def place() -> tuple[Path, str]:
    """Return where to make it, and the file that takes the limit."""
    if (TOP / "memory" / "memory.limit_in_bytes").exists():
        return TOP / "memory", "memory.limit_in_bytes"
    with suppress(OSError):
        if "memory" in (TOP / "cgroup.subtree_control").read_text().split():
            return TOP, "memory.max"
    raise StageError("this host has no memory controller for a cgroup of our own")


def removed(cgroup: Path) -> bool:
    """Remove it; False while somebody is in it."""
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
