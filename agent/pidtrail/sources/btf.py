"""
The kernel's own type information, as far as offsets need it (Documentation/bpf/btf.rst).

One pass over /sys/kernel/btf/vmlinux notes where each type stands; names are
looked for in the string section, not read one by one.
"""

from __future__ import annotations

import struct
from typing import Final

MAGIC: Final = 0xEB9F
HEADER: Final = struct.Struct("=HBBIIIII")
TYPE: Final = struct.Struct("=III")
MEMBER: Final = struct.Struct("=III")

STRUCT, UNION = 4, 5
MODIFIERS: Final = frozenset({8, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag: another name for the type behind."""
FIXED_TAIL: Final = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes behind the head of an int, an array, a variable, a declaration tag."""
PER_ENTRY: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes per entry of a struct, union, enum, prototype, data section, 64 bit enum."""
LAST_KIND: Final = 19
FLAG: Final = 1 << 31
"""In a struct's info: the high byte of a member's offset is the size of a bit field."""


class BtfError(ValueError):
    """The type information is not as expected, or a type or member is not in it."""


class Btf:
    """One BTF blob."""

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, length, type_at, type_bytes, text_at, text_bytes = HEADER.unpack_from(data)
        except struct.error as error:
            raise BtfError("not BTF: too short") from error
        if magic != MAGIC or length + max(type_at + type_bytes, text_at + text_bytes) > len(data):
            raise BtfError("not BTF of this machine, or cut short")
        self.data = data
        self.text_at = length + text_at
        self.text_end = self.text_at + text_bytes
        self.at = [0]
        self.named: dict[tuple[int, int], int] = {}
        self.scan(length + type_at, length + type_at + type_bytes)

    def scan(self, at: int, end: int) -> None:
        """Note where each type begins, and what the named ones are called."""
        data, positions, named = self.data, self.at, self.named
        unpack = TYPE.unpack_from
        while at + TYPE.size <= end:
            name, info, _ = unpack(data, at)
            kind = info >> 24 & 0x1F
            if kind > LAST_KIND:
                raise BtfError(f"a kind of type that is newer than this program: {kind}")
            if name and kind in {STRUCT, UNION}:
                named.setdefault((kind, name), len(positions))
            positions.append(at)
            at += TYPE.size + FIXED_TAIL.get(kind, 0)
            at += PER_ENTRY.get(kind, 0) * (info & 0xFFFF)

    def head(self, type_id: int) -> tuple[int, int, int]:
        """Return (kind, info, size or type) of a type, modifiers left out."""
        for _ in range(32):
            if not 0 < type_id < len(self.at):
                break
            _, info, word = TYPE.unpack_from(self.data, self.at[type_id])
            if info >> 24 & 0x1F not in MODIFIERS:
                return info >> 24 & 0x1F, info, word
            type_id = word
        raise BtfError(f"type {type_id} is void or leads nowhere")

    def bare(self, type_id: int) -> int:
        """Return the number of a type, modifiers left out."""
        for _ in range(32):
            _, info, word = TYPE.unpack_from(self.data, self.at[type_id])
            if info >> 24 & 0x1F not in MODIFIERS:
                break
            type_id = word
        return type_id

    def find(self, kind: int, name: str) -> int:
        """Return the number of a named type. Raises BtfError."""
        at = self.data.find(f"\0{name}\0".encode(), self.text_at, self.text_end)
        number = self.named.get((kind, at + 1 - self.text_at)) if at >= 0 else None
        if number is None:
            raise BtfError(f"no type {name}")
        return number

    def text(self, offset: int) -> str:
        """Return a string of the string section."""
        first = self.text_at + offset
        return self.data[first : self.data.index(b"\0", first)].decode("ascii", "replace")

    def size(self, name: str) -> int:
        """Return the size of a struct in bytes. Raises BtfError."""
        return self.head(self.find(STRUCT, name))[2]

    def offset(self, name: str, path: str) -> int:
        """Return the offset in bytes of `member.member...` in a struct. Raises BtfError."""
        type_id, total = self.find(STRUCT, name), 0
        for part in path.split("."):
            try:
                found = self.member(type_id, part)
            except (struct.error, IndexError, RecursionError) as error:
                raise BtfError(f"{name} is damaged: {error}") from error
            if found is None:
                raise BtfError(f"no member {path} in {name}")
            total, type_id = total + found[0], found[1]
        return total

    def has(self, name: str, path: str) -> bool:
        """Tell whether a struct has such a member."""
        try:
            self.offset(name, path)
        except BtfError:
            return False
        return True

    def member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """Return (offset, type) of a member, also of one in an unnamed struct or union."""
        kind, info, _ = self.head(type_id)
        if kind not in {STRUCT, UNION}:
            return None
        first = self.at[self.bare(type_id)] + TYPE.size
        for number in range(info & 0xFFFF):
            text, inner, bits = MEMBER.unpack_from(self.data, first + number * MEMBER.size)
            offset = (bits & 0xFFFFFF if info & FLAG else bits) // 8
            if text and self.text(text) == name:
                return offset, inner
            if not text and (found := self.member(inner, name)) is not None:
                return offset + found[0], found[1]
        return None
