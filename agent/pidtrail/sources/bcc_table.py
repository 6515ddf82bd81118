"""A map of a bcc program, in bytes: three calls of libbcc, without bcc's guess at the types."""

from __future__ import annotations

import ctypes
from typing import Any, Final

BPF_ANY: Final = 0
BPF_NOEXIST: Final = 1


class Table:
    """One BPF map; `table` is what bcc.BPF gives for its name."""

    def __init__(self, lib: Any, table: Any) -> None:
        self.lib = lib
        self.fd = table.map_fd
        self.table = table

    def set(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> bool:
        """Write an entry; False if it may not be (it is there already, the map is full)."""
        done: int = self.lib.bpf_update_elem(self.fd, key_of(key), key_of(value), flags)
        return done == 0

    def get(self, key: bytes, size: int) -> bytes | None:
        """Return a value of `size` bytes, or None if there is none."""
        value = ctypes.create_string_buffer(size)
        if self.lib.bpf_lookup_elem(self.fd, key_of(key), value) != 0:
            return None
        return value.raw

    def delete(self, key: bytes) -> bool:
        """Delete an entry; False if there is none."""
        done: int = self.lib.bpf_delete_elem(self.fd, key_of(key))
        return done == 0

    def keys(self) -> list[bytes]:
        """Return all keys."""
        return [bytes(key) for key in self.table]


def key_of(data: bytes) -> Any:
    """Return bytes where C can point to."""
    return ctypes.create_string_buffer(data, len(data))
