"""
The system's libbpf.so.1 through ctypes: the few calls that loading takes.

Nothing newer than libbpf 1.0 is used (Debian 12 has 1.1, Ubuntu 24.04 1.3,
Debian 13 1.5). Since 1.0 a call that fails returns NULL or a negative errno and
sets errno (libbpf_legacy.h LIBBPF_STRICT_ALL is always on).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import TYPE_CHECKING, Any

from pidtrail.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENTRIES_AT_ONCE = 2048
PRINT_FUNCTION = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_program__attach_iter": (c_void_p, [c_void_p, c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_lookup_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, ctypes.c_uint64]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "bpf_iter_create": (c_int, [c_int]),
    "libbpf_set_print": (c_void_p, [PRINT_FUNCTION]),
}


@contextmanager
def interrupts_held() -> Iterator[None]:
    """
    Raise KeyboardInterrupt after a call into libbpf, not in what libbpf calls back.

    ctypes drops what a callback raises, and one that came while the kernel verified
    a program would be raised in the next message. Who handles SIGINT otherwise is
    left alone, as is any thread but the first, in which alone Python handles signals.
    """
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt


class Library:
    """
    libbpf itself, and the last lines it said.

    Raises SourceUnavailable if the library is missing or too old.
    """

    def __init__(self) -> None:
        try:
            self.so = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise SourceUnavailable(
                "libbpf.so.1 is not installed", "on Debian and Ubuntu: apt-get install libbpf1"
            ) from error
        for name, (result, arguments) in SIGNATURES.items():
            try:
                function = getattr(self.so, name)
            except AttributeError:
                raise SourceUnavailable(f"libbpf.so.1 has no {name}: too old") from None
            function.restype = result
            function.argtypes = arguments
        self.said: list[str] = []
        # libbpf formats with a va_list, which ctypes cannot read; the format alone says which
        # step failed.
        self.print_function = PRINT_FUNCTION(self.on_print)
        self.so.libbpf_set_print(self.print_function)

    def on_print(self, _level: int, template: bytes, _arguments: int) -> int:
        """Keep the format of libbpf's last messages instead of letting it write to stderr."""
        self.said = [*self.said[-4:], template.decode("utf-8", "replace").strip()]
        return 0

    def failed(self, what: str, code: int = 0) -> SourceUnavailable:
        """Return the error for a failed call, with errno in words."""
        number = -code if code < 0 else ctypes.get_errno()
        return SourceUnavailable(f"{what}: {os.strerror(number)}")


class BpfObject:
    """
    One compiled object: opened, its variables set, loaded, attached.

    Raises SourceUnavailable from every step.
    """

    def __init__(self, library: Library, path: Path) -> None:
        self.library = library
        self.so = library.so
        self.name = path.name
        self.links: list[int] = []
        with interrupts_held():
            self.handle: int | None = self.so.bpf_object__open_file(os.fsencode(path), None)
        if not self.handle:
            raise library.failed(f"cannot open {path}")

    def map(self, name: str) -> int:
        """Return libbpf's handle of a map."""
        found: int | None = self.so.bpf_object__find_map_by_name(self.handle, name.encode())
        if not found:
            raise SourceUnavailable(f"{self.name} has no map {name}: built from other sources")
        return found

    def map_fd(self, name: str) -> int:
        """Return the file descriptor of a loaded map."""
        fd: int = self.so.bpf_map__fd(self.map(name))
        return fd

    def entries(self, name: str, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield key and value of each entry of a hash map, in a few large steps.

        bpf_map_get_next_key would start again at each key that was deleted meanwhile.
        """
        fd, count = self.map_fd(name), c_uint32(ENTRIES_AT_ONCE)
        keys = ctypes.create_string_buffer(key_size * ENTRIES_AT_ONCE)
        values = ctypes.create_string_buffer(value_size * ENTRIES_AT_ONCE)
        place, at = ctypes.create_string_buffer(max(key_size, 8)), None
        code = 0
        while code == 0:
            count.value = ENTRIES_AT_ONCE
            code = self.so.bpf_map_lookup_batch(fd, at, place, keys, values, byref(count), None)
            if code not in (0, -errno.ENOENT):
                return
            all_keys, all_values = keys.raw, values.raw
            for i in range(count.value):
                key = all_keys[i * key_size : (i + 1) * key_size]
                yield key, all_values[i * value_size : (i + 1) * value_size]
            at = place

    def delete(self, name: str, key: bytes) -> bool:
        """Delete one entry of a hash map; tell whether it was there."""
        code: int = self.so.bpf_map_delete_elem(self.map_fd(name), key)
        return code == 0

    def section(self, suffix: str) -> ctypes.Array[ctypes.c_char]:
        """
        Return the initial bytes of .rodata or .bss, to be written before load.

        They are not the kernel's map, which libbpf maps in their place for a skeleton only
        (bpf_object__load_skeleton): what a program wrote, `variable` reads.
        """
        size = c_size_t()
        address = self.so.bpf_map__initial_value(self.map(suffix), byref(size))
        if not address:
            raise SourceUnavailable(f"{self.name} has no {suffix}")
        return (ctypes.c_char * size.value).from_address(address)

    def variable(self) -> int:
        """Return what the one variable in .bss, of 32 bits, is by now. Raises SourceUnavailable."""
        key, value = c_uint32(0), c_uint32()
        code = self.so.bpf_map_lookup_elem(self.map_fd(".bss"), byref(key), byref(value))
        if code:
            raise self.library.failed(f"cannot read .bss of {self.name}", code)
        return value.value

    def share_maps(self, other: BpfObject, names: tuple[str, ...]) -> None:
        """Use the maps of an object that is loaded already instead of own ones."""
        for name in names:
            code = self.so.bpf_map__reuse_fd(self.map(name), other.map_fd(name))
            if code:
                raise self.library.failed(f"cannot share map {name} with {self.name}", code)

    def load(self) -> None:
        """Let the kernel verify and take the programs."""
        with interrupts_held():
            code = self.so.bpf_object__load(self.handle)
        if code:
            raise self.library.failed(f"the kernel does not take {self.name}", code)

    def programs(self) -> Iterator[tuple[str, int]]:
        """Yield the name and handle of each program."""
        program: int | None = self.so.bpf_object__next_program(self.handle, None)
        while program:
            yield self.so.bpf_program__name(program).decode(), program
            program = self.so.bpf_object__next_program(self.handle, program)

    def attach(self) -> None:
        """Attach every program but the iterators."""
        for name, program in self.programs():
            if name == "walk_tasks":
                continue
            with interrupts_held():
                link = self.so.bpf_program__attach(program)
                if not link:
                    raise self.library.failed(f"cannot attach {name} of {self.name}")
                self.links.append(link)

    def lost_links(self) -> int:
        """Return how many of our links the kernel does not know any more."""
        lost = 0
        for link in self.links:
            info = ctypes.create_string_buffer(256)
            size = c_uint32(len(info))
            fd = self.so.bpf_link__fd(link)
            lost += self.so.bpf_obj_get_info_by_fd(fd, info, byref(size)) != 0
        return lost

    def iterate(self, program_name: str) -> bytes:
        """Run an iterator program once over all tasks and return what it wrote."""
        program = self.so.bpf_object__find_program_by_name(self.handle, program_name.encode())
        with interrupts_held():
            link = self.so.bpf_program__attach_iter(program, None)
        if not link:
            raise self.library.failed(f"cannot attach {program_name}")
        try:
            fd = self.so.bpf_iter_create(self.so.bpf_link__fd(link))
            if fd < 0:
                raise self.library.failed(f"cannot run {program_name}", fd)
            with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor, not a path)
                return file.readall()
        finally:
            self.so.bpf_link__destroy(link)

    def close(self) -> None:
        """Detach and unload. May be called twice."""
        for link in self.links:
            self.so.bpf_link__destroy(link)
        self.links.clear()
        if self.handle:
            self.so.bpf_object__close(self.handle)
            self.handle = None
