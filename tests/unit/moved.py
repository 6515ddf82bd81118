"""A process that has moved its environment, as files: its memory holds one program, by hand."""

from __future__ import annotations

import struct
from pathlib import Path

BASE = 0x10000
DYNAMIC, NAMES, SYMBOLS, HASHES, VARIABLE, ARRAY, VALUE = range(0x100, 0x800, 0x100)
GNU_HASH = 0x6FFFFEF5


def program(*, relocated: bool, value: bytes = b"AIRFLOW_HOME=/x\0") -> bytes:
    """
    Return a program that defines `environ`, as elf(5) has it in memory.

    `relocated` says whether the addresses of its tables are where they are, as glibc makes
    them, or are to be added to its own, as musl leaves them.
    """
    base = BASE if relocated else 0
    code = 5381
    for byte in b"environ":
        code = (code * 33 + byte) & 0xFFFFFFFF
    tables = ((5, base + NAMES), (6, base + SYMBOLS), (GNU_HASH, base + HASHES), (0, 0))
    parts = {
        0: b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("=HHIQQQI", 3, 62, 1, 0, 64, 0, 0),
        52: struct.pack("=HHH", 64, 56, 1),
        64: struct.pack("=IIQQ", 2, 6, DYNAMIC, DYNAMIC),
        DYNAMIC: b"".join(struct.pack("=QQ", *one) for one in tables),
        NAMES: b"\0environ\0",
        SYMBOLS: bytes(24) + struct.pack("=IBBHQQ", 1, 0x21, 0, 1, VARIABLE, 8),
        HASHES: struct.pack("=4IQII", 1, 1, 1, 0, 0, 1, code | 1),
        VARIABLE: struct.pack("=Q", BASE + ARRAY),
        ARRAY: struct.pack("=QQ", BASE + VALUE, 0),
        VALUE: value,
    }
    memory = bytearray(0x1000)
    for at, part in parts.items():
        memory[at : at + len(part)] = part
    return bytes(memory)


def process(folder: Path, memory: bytes, pid: int = 7) -> Path:
    """Make a /proc with one process that runs a program with this memory, and return it."""
    own = folder / str(pid)
    own.mkdir()
    (own / "environ").write_bytes(bytes(64))
    (own / "exe").symlink_to("/x")
    (own / "maps").write_text(f"{BASE:08x}-{BASE + 0x1000:08x} r--p 00000000 08:01 7      /x\n")
    with (own / "mem").open("wb") as file:
        file.seek(BASE)
        file.write(memory)
    return folder
