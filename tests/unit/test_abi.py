"""bpf/event.h and its mirror in Python have the same layout, down to each member."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pidtrail.sources import wire

HEADER = Path(__file__).resolve().parents[2] / "bpf" / "event.h"

MIRRORS: dict[str, struct.Struct] = {
    "pt_head": wire.HEAD,
    "pt_fork": wire.FORK,
    "pt_exec": wire.EXEC,
    "pt_title": wire.TITLE,
    "pt_exit": wire.EXIT,
    "pt_reap": wire.REAP,
    "pt_signal": wire.SIGNAL,
    "pt_oom": wire.OOM,
    "pt_migrate": wire.MIGRATE,
    "pt_task": wire.TASK,
    "pt_process_key": wire.PROCESS_KEY,
    "pt_zombie": wire.ZOMBIE,
    "pt_config": wire.CONFIG,
    "pt_losses": wire.LOSSES,
}
KINDS = {
    "PT_FORK": wire.KIND_FORK,
    "PT_EXEC": wire.KIND_EXEC,
    "PT_TITLE": wire.KIND_TITLE,
    "PT_EXIT": wire.KIND_EXIT,
    "PT_REAP": wire.KIND_REAP,
    "PT_SIGNAL": wire.KIND_SIGNAL,
    "PT_OOM": wire.KIND_OOM,
    "PT_MIGRATE": wire.KIND_MIGRATE,
    "PT_TASK": wire.KIND_TASK,
    "PT_SELF": wire.KIND_SELF,
    "PT_ABI_VERSION": wire.ABI_VERSION,
    "PT_NS_LEVELS": wire.NS_LEVELS,
}
PRELUDE = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
typedef uint32_t pt_u32;
typedef uint64_t pt_u64;
typedef int32_t pt_s32;
#include "event.h"
"""

STRUCT = re.compile(r"struct (pt_\w+) \{(.*?)\n\};", re.DOTALL)
MEMBER = re.compile(r"^\t(?:struct )?(\w+) (\w+)(?:\[\w+\])?;", re.MULTILINE)


def members_of(header: str) -> dict[str, list[tuple[str, str]]]:
    """Return (type, name) of each member of each struct, as the header writes them."""
    return {name: MEMBER.findall(body) for name, body in STRUCT.findall(header)}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return what the compiler says: sizes, offsets and enumerators by their C names."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    expressions = {name: name for name in KINDS}
    for name, members in members_of(HEADER.read_text()).items():
        expressions[name] = f"sizeof(struct {name})"
        for _, member in members:
            expressions[f"{name}.{member}"] = f"offsetof(struct {name}, {member})"
    lines = [f'printf("{key} %zu\\n", (size_t)({c}));' for key, c in expressions.items()]
    place = tmp_path_factory.mktemp("abi")
    source, binary = place / "abi.c", place / "abi"
    source.write_text(PRELUDE + "int main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n")
    command = ("gcc", "-std=gnu11", "-Wall", "-Werror", "-Wpadded", "-I", str(HEADER.parent))
    subprocess.run([*command, "-o", binary, source], check=True)
    said = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    return {key: int(number) for key, number in (line.split() for line in said.splitlines())}


def offsets(mirror: struct.Struct) -> list[int]:
    """Return where each field of a format starts."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", mirror.format):
        times = int(count) if count and code != "s" else 1
        size = struct.calcsize(f"={count}s" if code == "s" else f"={code}")
        found += [at + i * size for i in range(times)]
        at += times * size
    return found


def test_every_struct_has_a_mirror(compiled: dict[str, int]) -> None:
    """A struct that is added to the header is missing here, or the other way round."""
    assert {name for name in compiled if name.startswith("pt_") and "." not in name} == set(MIRRORS)


@pytest.mark.parametrize("name", MIRRORS)
def test_sizes_agree(compiled: dict[str, int], name: str) -> None:
    """No member too many, none too few, no padding that only one side has."""
    assert MIRRORS[name].size == compiled[name]


@pytest.mark.parametrize("name", MIRRORS)
def test_offsets_agree(compiled: dict[str, int], name: str) -> None:
    """Each member starts where its field starts; the head's fields and arrays in one go."""
    expected: list[int] = []
    for kind, member in members_of(HEADER.read_text())[name]:
        start = compiled[f"{name}.{member}"]
        if kind == "pt_head":
            expected += [start + offset for offset in offsets(wire.HEAD)]
        elif member == "ns_pids":
            expected += [start + 4 * i for i in range(wire.NS_LEVELS)]
        else:
            expected.append(start)
    assert offsets(MIRRORS[name]) == expected


@pytest.mark.parametrize("name", MIRRORS)
def test_signs_and_widths_agree(name: str) -> None:
    """A signed member is a signed field, and 32 bits are 32 bits."""
    codes = {"pt_u32": "I", "pt_s32": "i", "pt_u64": "Q", "char": "s"}
    expected = ""
    for kind, member in members_of(HEADER.read_text())[name]:
        if kind == "pt_head":
            expected += "IIQQ"
        else:
            expected += codes[kind] * (wire.NS_LEVELS if member == "ns_pids" else 1)
    fields = re.findall(r"(\d*)([a-zA-Z])", MIRRORS[name].format)
    ours = "".join(code * (int(count) if count and code != "s" else 1) for count, code in fields)
    assert ours == expected


def test_kinds_agree(compiled: dict[str, int]) -> None:
    """Enumerators and constants have one value."""
    assert {name: compiled[name] for name in KINDS} == KINDS


def test_exit_is_parsed_in_two_parts_of_the_same_whole() -> None:
    """The two formats that the parser uses are its one mirror, cut."""
    assert wire.EXIT_HEAD.size + wire.EXIT_TAIL.size == wire.EXIT.size
    assert wire.EXIT_HEAD.format + wire.EXIT_TAIL.format.removeprefix("=") == wire.EXIT.format
