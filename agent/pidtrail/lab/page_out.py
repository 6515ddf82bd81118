"""
Being paged out and in: anonymous memory to swap, a file mapping dropped and read again.

mm/vmscan.c shrink_folio_list takes pages away and leaves swap entries or nothing in
the page table; mm/memory.c do_swap_page and mm/filemap.c filemap_fault bring them
back and count a major fault. They handle an `mm_struct`, which has no PID at all.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from pidtrail.lab.bench import Bench, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least

PAGES: Final = 512
ROUNDS: Final = 2
FAULTS: Final = PAGES * ROUNDS * 9 // 10
PAGE: Final = 4096
NO_DISK: Final = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}


class PageOut(Experiment):
    """MADV_PAGEOUT on a mapped file, and on anonymous memory where there is swap."""

    name = "page-out"
    claim = "A process keeps its PID when its memory is paged out and in"
    needs = ("sees_short_lived", "has_counters")
    wants = least(major_faults=FAULTS)

    def act(self, bench: Bench) -> Pair:
        """Have pages taken away and touch them again, by file and, with swap, without."""
        with disk_file() as file:
            # In memory already, so that each major fault is one of a page that was taken away.
            file.write(bytes(PAGES * PAGE))
            file.flush()
            subject = bench.fork()
            before = subject.probe()
            subject.ask("page_out", file.fileno(), pages=PAGES, rounds=ROUNDS)
            if has_swap():
                subject.ask("page_out", pages=PAGES, rounds=ROUNDS)
            after = subject.probe()
            bench.dismiss(subject)
        return Pair(before, after)

    def notes(self, trial: Trial) -> list[str]:  # noqa: ARG002 (this one is about the host)
        """Return which half was tested."""
        if has_swap():
            return ["both halves were tested: a mapped file, and anonymous memory to swap"]
        return ["this host has no swap: tested was the half with a mapped file"]


def has_swap() -> bool:
    """Return whether there is swap: the first line of /proc/swaps is a head."""
    try:
        return len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) > 1
    except OSError:
        return False


@contextlib.contextmanager
def disk_file() -> Iterator[IO[bytes]]:
    """Open a file on a disk, which has no name already: nothing can be left of it. Raises Skip."""
    for folder in ("/var/tmp", tempfile.gettempdir(), "."):  # noqa: S108 (asked for, nameless)
        if kind_of(Path(folder)) in NO_DISK:
            continue
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the caller has it open)
        except OSError:
            continue
        with file:
            yield file
        return
    raise Skip("it needs a folder on a disk for a temporary file: pages of a tmpfs stay in memory")


def kind_of(folder: Path) -> str | None:
    """Return the file system that a folder is on."""
    place = folder.resolve()
    best: tuple[int, str] | None = None
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind = line.split()[:3]
        if place.is_relative_to(mount) and (best is None or len(mount) >= best[0]):
            best = len(mount), kind
    return best[1] if best is not None else None
