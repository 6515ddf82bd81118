"""(b) A long-running task, moved between CPUs from outside, its pages pushed out to disk."""

from __future__ import annotations

import contextlib
import datetime as dt
import mmap
import os
import time
from pathlib import Path

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from demo.witness import FOLDER_VARIABLE, write_note

_SECONDS = 25
_PAGES = 64
_PUSH_OUT_EVERY_S = 2.0
_MADV_PAGEOUT = 21  # include/uapi/asm-generic/mman-common.h; Linux 5.4


def work(**context: object) -> None:
    """Note which process this is, use a little CPU time for 25 s, note it again."""
    write_note(context, "begin")
    maps = [_plain_memory(), _file_pages()]
    begin = time.monotonic()
    pushed_out = 0
    while (passed := time.monotonic() - begin) < _SECONDS:
        if passed > pushed_out * _PUSH_OUT_EVERY_S:
            pushed_out += 1
            _read_back_from_disk(maps)
        # Asleep, a process is not moved: it must wake to land on the CPU it is now allowed on.
        sum(range(2000))
        time.sleep(0.005)
    write_note(context, "end")


def _plain_memory() -> mmap.mmap:
    """Return pages that can only be pushed out to swap: they stay where there is none."""
    memory = mmap.mmap(-1, _PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(os.urandom(len(memory)))
    return memory


def _file_pages() -> mmap.mmap:
    """Return pages of a file on disk, which the kernel can take away on any host."""
    path = Path(os.environ[FOLDER_VARIABLE]).with_name("pages")
    with path.open("w+b") as file:
        file.write(os.urandom(_PAGES * mmap.PAGESIZE))
        file.flush()
        os.fsync(file.fileno())  # a page that is not on disk yet is not taken away
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pages.madvise(mmap.MADV_RANDOM)  # no read-ahead: each page is a major fault of its own
    return pages


def _read_back_from_disk(maps: list[mmap.mmap]) -> None:
    for pages in maps:
        with contextlib.suppress(OSError):  # an older kernel: there will be no major faults
            pages.madvise(_MADV_PAGEOUT)
        for offset in range(0, len(pages), mmap.PAGESIZE):
            pages[offset]


with DAG("pidtrail_long", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)):
    PythonOperator(task_id="moves", python_callable=work)
