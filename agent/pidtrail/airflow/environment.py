"""
The environment of a process, also where it has moved.

/proc/PID/environ shows the bytes that the kernel laid out at execve. setproctitle takes that
place for titles, moves the environment to the heap, and zeroes what was there, at its first
call, `getproctitle()` included (setproctitle 1.3.7, src/spt_setup.c). Airflow 2.x calls it in
every part: LocalExecutor for its titles, Celery for its own, and gunicorn, which whoever may
serve logs imports, when it is imported (gunicorn/util.py @ 25; airflow/utils/serve_logs.py @
2.11.2). Where the environment is now the process itself knows: the C library's variable
`environ` (environ(7)). It is looked up as the dynamic linker would, by the tables in
the process's own memory, which is read and never written (/proc/PID/mem, proc_pid_mem(5)).

That takes what ptrace(2) calls PTRACE_MODE_ATTACH_FSCREDS: CAP_SYS_PTRACE, as the service has.
"""

from __future__ import annotations

import os
import pwd
import struct
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

_PAGE: Final = 4096
_MOST_VARIABLES: Final = 4096
_MOST_VALUE: Final = 131_072
"""The longest that execve takes (MAX_ARG_STRLEN)."""
_MOST_BYTES: Final = 2 << 20
_MOST_CHAIN: Final = 256
_MOST_IMAGES: Final = 8
_MOST_HEADERS: Final = 64
"""Whoever likes calls himself Airflow: a memory made up for us costs no more than this."""
_MOST_ADDRESS: Final = (1 << 63) - 1
_ELF64: Final = b"\x7fELF\x02"
_ET_EXEC, _PT_DYNAMIC = 2, 2
_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 5, 6, 0x6FFFFEF5
_SYMBOL: Final = struct.Struct("=IBBHQQ")


def environ_of(pid: int | None, proc: Path = Path("/proc")) -> dict[str, str]:
    """Return the environment of a process, empty where it cannot be known."""
    if pid is None:
        return {}
    try:
        raw = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    words = raw.rstrip(b"\0")
    # More than one zero at the end: a title stands there, which may look like a variable.
    shown = _variables(words.split(b"\0")) if len(raw) - len(words) <= 1 else {}
    if shown or not raw:
        return shown
    try:
        return _variables(_moved(proc / str(pid)))
    except (OSError, struct.error):
        return {}


def home_of(pid: int | None, proc: Path) -> str | None:
    """Return the home directory of a process's user, as the last resort."""
    if pid is None:
        return None
    env = environ_of(pid, proc)
    if env.get("HOME"):
        return env["HOME"]
    try:
        return pwd.getpwuid((proc / str(pid)).stat().st_uid).pw_dir
    except (OSError, KeyError):
        return None


def _variables(entries: list[bytes]) -> dict[str, str]:
    pairs = (entry.decode(errors="surrogateescape").partition("=") for entry in entries)
    return {name: value for name, separator, value in pairs if separator and name.isidentifier()}


class _Image(NamedTuple):
    """A program or library in memory: where it is, and what is added to its addresses."""

    start: int
    bias: int


class _Memory:
    """What a process has at which address."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def at(self, address: int, size: int) -> bytes:
        """Return what is there, less of it where a mapping ends. Raises OSError."""
        if address > _MOST_ADDRESS:
            raise OSError(f"{address:#x} is no address")
        return os.pread(self.descriptor, size, address)

    def number(self, address: int, form: str = "=Q") -> int:
        """Return one number. Raises OSError or struct.error."""
        (found,) = struct.unpack(form, self.at(address, struct.calcsize(form)))
        return int(found)

    def text(self, address: int) -> bytes:
        """Return what stands up to a NUL, or up to the most."""
        found = b""
        while len(found) < _MOST_VALUE:
            # To the end of a page: the next one may not be there.
            piece = self.at(address + len(found), _PAGE - (address + len(found)) % _PAGE)
            head, end, _ = piece.partition(b"\0")
            found += head
            if end or not piece:
                break
        return found

    def texts(self, address: int) -> list[bytes]:
        """Return what an array of addresses points to, up to its null."""
        raw = self.at(address, 8 * _MOST_VARIABLES)
        addresses = struct.unpack(f"={len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
        found: list[bytes] = []
        left = _MOST_BYTES
        for one in takewhile(bool, addresses):
            found.append(self.text(one))
            left -= len(found[-1])
            if left < 0:
                break
        return found


def _moved(folder: Path) -> list[bytes]:
    """Return the variables as the process has them. Raises OSError or struct.error."""
    descriptor = os.open(folder / "mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        memory = _Memory(descriptor)
        for image in _images(memory, folder):
            variable = _symbol(memory, image, b"environ")
            if variable is not None:
                return memory.texts(memory.number(variable))
    finally:
        os.close(descriptor)
    return []


def _images(memory: _Memory, folder: Path) -> Iterator[_Image]:
    """
    Yield the program, then the C library.

    The program first: where it names the variable itself it has the only copy (R_*_COPY).
    """
    program = os.readlink(folder / "exe")  # noqa: PTH115 (text, may be no path)
    starts: dict[str, int] = {}
    for line in (folder / "maps").read_text(errors="replace").splitlines():
        # address perms offset dev inode path (proc_pid_maps(5))
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and int(fields[2], 16) == 0:
            starts.setdefault(fields[5], int(fields[0].partition("-")[0], 16))
    libraries = [path for path in starts if path.rpartition("/")[2].startswith(("libc", "ld-musl"))]
    for path in (program, *libraries)[:_MOST_IMAGES]:
        start = starts.get(path)
        if start is not None and memory.at(start, 5) == _ELF64:
            is_fixed = memory.number(start + 16, "=H") == _ET_EXEC
            yield _Image(start, 0 if is_fixed else start)


def _symbol(memory: _Memory, image: _Image, name: bytes) -> int | None:
    """Return where a variable is that an image defines, None if it does not (elf(5))."""
    tables = _dynamic(memory, image)
    if not {_DT_GNU_HASH, _DT_SYMTAB, _DT_STRTAB} <= tables.keys():
        return None
    table = tables[_DT_GNU_HASH]
    buckets, first, blooms, _ = struct.unpack("=4I", memory.at(table, 16))
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    begin = table + 16 + 8 * blooms
    index = memory.number(begin + 4 * (value % buckets), "=I") if buckets else 0
    for one in range(index, index + _MOST_CHAIN) if index >= first else ():
        hashed = memory.number(begin + 4 * buckets + 4 * (one - first), "=I")
        if hashed | 1 == value | 1:
            entry = memory.at(tables[_DT_SYMTAB] + _SYMBOL.size * one, _SYMBOL.size)
            text, _, _, section, address, _ = _SYMBOL.unpack(entry)
            found = memory.at(tables[_DT_STRTAB] + text, len(name) + 1)
            if section and found == name + b"\0":
                return image.bias + int(address)
        if hashed & 1:
            break
    return None


def _dynamic(memory: _Memory, image: _Image) -> dict[int, int]:
    """Return where the tables of the dynamic linker are, by their tags."""
    table = image.start + memory.number(image.start + 32)
    size, count = struct.unpack("=HH", memory.at(image.start + 54, 4))
    found: dict[int, int] = {}
    for number in range(min(count, _MOST_HEADERS)):
        kind, _, _, address = struct.unpack("=IIQQ", memory.at(table + size * number, 24))
        if kind != _PT_DYNAMIC:
            continue
        raw = memory.at(image.bias + address, 16 * 128)
        for tag, value in struct.iter_unpack("=QQ", raw[: len(raw) // 16 * 16]):
            if tag == 0:
                break
            # glibc has added the bias in place, musl has not.
            found[tag] = value if value >= image.start else value + image.bias
    return found
