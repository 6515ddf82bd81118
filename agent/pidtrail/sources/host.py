"""
What this host offers to those who watch processes: facts for `doctor`, none of them a verdict.

None stands for what cannot be known here.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import msgspec

from pidtrail.errors import SourceUnavailable
from pidtrail.events import INITIAL_PID_NS
from pidtrail.sources import capabilities
from pidtrail.sources.bcc_program import header_trees
from pidtrail.sources.core import BTF, RING_BYTES


class Host(msgspec.Struct, frozen=True):
    """
    The host, as far as tracing depends on it.

    `headers` is whether bcc would find kernel headers here, of whatever kernel, and `headers_in`
    the folders that have them.

    `lockdown` is the mode of kernel_lockdown(7). `pid_namespace` is an inode,
    and `initial_pid_namespace` tells whether it is the host's own: in another
    one the host's processes have no numbers. `hidepid` is the option of /proc
    that hides other users' processes (proc(5)). `pid_max` is the number after
    which numbers are used again.
    """

    kernel: str
    machine: str
    btf: bool
    libbpf: str | None
    headers: bool
    headers_in: list[str]
    tracefs: str | None
    lockdown: str | None
    capabilities: list[str]
    uid: int
    pid_namespace: int | None
    initial_pid_namespace: bool | None
    hidepid: str | None
    pid_max: int | None
    ring_bytes: int
    swap: bool | None


def look() -> Host:
    """Return the facts of this host, now."""
    names = os.uname()
    inode = pid_namespace()
    found = headers()
    return Host(
        kernel=names.release,
        machine=names.machine,
        btf=BTF.exists(),
        libbpf=libbpf_version(),
        headers=bool(found),
        headers_in=found,
        tracefs=next((place for place, kind, _ in mounts() if kind == "tracefs"), None),
        lockdown=lockdown(),
        capabilities=sorted(capabilities.effective()),
        uid=os.geteuid(),
        pid_namespace=inode,
        initial_pid_namespace=None if inode is None else inode == INITIAL_PID_NS,
        hidepid=hidepid(),
        pid_max=number(read("/proc/sys/kernel/pid_max")),
        ring_bytes=RING_BYTES,
        swap=swap(),
    )


def headers(root: Path = Path("/")) -> list[str]:
    """Return where bcc would find kernel headers, empty if there are none (or none named so)."""
    try:
        return [str(tree) for tree in header_trees(root)]
    except SourceUnavailable:
        return []


def libbpf_version() -> str | None:
    """Return the version of the system's libbpf, or None if there is none to load."""
    try:
        library = ctypes.CDLL("libbpf.so.1")
        library.libbpf_version_string.restype = ctypes.c_char_p
        version: bytes = library.libbpf_version_string()
    except (OSError, AttributeError):
        return None
    return version.decode("ascii", "replace")


def pid_namespace() -> int | None:
    """Return the inode of our PID namespace."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def lockdown() -> str | None:
    """Return the mode in brackets, e.g. `none` of `[none] integrity confidentiality`."""
    text = read("/sys/kernel/security/lockdown")
    if text is None or "[" not in text:
        return None
    return text.partition("[")[2].partition("]")[0]


def hidepid() -> str | None:
    """Return the value of hidepid= that /proc is mounted with, `0` if it has none."""
    for place, kind, options in mounts():
        if place == "/proc" and kind == "proc":
            found = (o.partition("=")[2] for o in options.split(",") if o.startswith("hidepid="))
            return next(found, "0")
    return None


def swap() -> bool | None:
    """Return whether there is swap space in use or ready: the first line is a head."""
    text = read("/proc/swaps")
    return None if text is None else len(text.splitlines()) > 1


def mounts() -> list[tuple[str, str, str]]:
    """Return (place, kind, options) of every mount we see."""
    lines = (line.split() for line in (read("/proc/self/mounts") or "").splitlines())
    return [(words[1], words[2], words[3]) for words in lines if len(words) > 3]


def read(path: str) -> str | None:
    """Return a file's text, or None."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def number(text: str | None) -> int | None:
    """Return a decimal number, or None."""
    return int(text) if text is not None and text.strip().isdigit() else None
