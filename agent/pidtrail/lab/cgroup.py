"""
The lab's own cgroups: made, used and removed; nobody else's is touched.

Version 2 where it is mounted, anywhere; version 1 controllers beside it where a
controller is not in version 2. Each is a directory at the top of its hierarchy
called `pidtrail-lab-OWNER-LABEL` (see leftovers.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

PREFIX: Final = "pidtrail-lab-"
PATIENCE_S: Final = 5.0


class Cgroup:
    """One directory of the lab's own; use `remove` when done."""

    def __init__(self, top: Path, owner: str, label: str) -> None:
        self.path = top / f"{PREFIX}{owner}-{label}"
        self.path.mkdir()

    @property
    def cgroup_id(self) -> int:
        """Return the number by which the kernel calls it in version 2 (a kernfs inode)."""
        return self.path.stat().st_ino

    def add(self, pid: int) -> None:
        """Move a process here, with all its threads."""
        self.write("cgroup.procs", str(pid))

    def write(self, name: str, text: str) -> None:
        """Write one of its files."""
        (self.path / name).write_text(text, encoding="ascii")

    def read(self, name: str) -> str:
        """Return one of its files."""
        return (self.path / name).read_text(encoding="ascii")

    def has(self, name: str) -> bool:
        """Return whether it has such a file: whether a controller is at work here."""
        return (self.path / name).exists()


def tops() -> tuple[Path | None, dict[str, Path]]:
    """Return where version 2 is mounted, and where each controller of version 1 is."""
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2":
            unified = unified or Path(place)
        elif kind == "cgroup":
            controllers.update(dict.fromkeys(options.split(","), Path(place)))
    return unified, controllers


def found() -> list[Path]:
    """Return every cgroup of any lab."""
    unified, controllers = tops()
    places = {*controllers.values(), *([unified] if unified is not None else [])}
    found_here: list[Path] = []
    for place in places:
        with contextlib.suppress(OSError):
            found_here += sorted(place.glob(f"{PREFIX}*"))
    return found_here


def owner_in(name: str) -> str:
    """Return the OWNER in a directory's name."""
    return "-".join(name.removeprefix(PREFIX).split("-")[:3])


def remove(path: Path) -> None:
    """Thaw, kill who is in there, and remove the directory. Raises OSError if that fails."""
    thaw(path)
    limit = time.monotonic() + PATIENCE_S
    while True:
        for pid in members(path):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            # A dead process leaves its cgroup a moment after it is collected.
            if time.monotonic() > limit:
                raise
            time.sleep(0.005)
        else:
            return


def thaw(path: Path) -> None:
    """Let a frozen cgroup go on: in version 1 nothing frozen dies."""
    for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        if (path / name).exists():
            with contextlib.suppress(OSError):
                (path / name).write_text(text, encoding="ascii")


def members(path: Path) -> list[int]:
    """Return the processes in a cgroup."""
    try:
        return [int(word) for word in (path / "cgroup.procs").read_text("ascii").split()]
    except OSError:
        return []
