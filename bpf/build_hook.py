"""
Compile the BPF programs into the package, when it is built.

hatchling runs this for wheels, source archives and editable installs; `make -C bpf`
and `./do bpf` run it as a script. Each `bpf/NAME.bpf.c` becomes
`agent/pidtrail/bpf/NAME.bpf.o`: CO-RE, with BTF kept and DWARF stripped.

An object no older than everything it is made from is left as it is. That makes
a second build quick, and lets a source archive, in which all files have one date
and the objects are included, be installed on a host without clang.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
OBJECTS = HERE.parent / "agent" / "pidtrail" / "bpf"

# -g makes the BTF that CO-RE relocations live in; -mcpu=v3 has the 32-bit
# instructions that every kernel with BTF and a ring buffer (5.8) knows.
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-std=gnu11", "-Wall", "-Werror")


class BuildError(Exception):
    """The objects could not be made; the message says what to do about it."""


class BpfBuildHook(BuildHookInterface[Any]):
    """What hatchling calls before it collects the files of a build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Bring the objects up to date. hatchling's `artifacts` setting picks them up."""
        try:
            for line in build(OBJECTS):
                self.app.display_info(line)
        except BuildError as error:
            self.app.abort(f"bpf: {error}")


def build(target: Path, *, clang: str | None = None) -> Iterator[str]:
    """
    Bring every object in `target` up to date, and say what is compiled line by line.

    With `clang`, that compiler and no other. Raises BuildError.
    """
    sources = sorted(HERE.glob("*.bpf.c"))
    if not sources:
        raise BuildError(f"no BPF sources (*.bpf.c) in {HERE}")
    for source in sources:
        made = target / f"{source.name.removesuffix('.c')}.o"
        if is_current(made, source):
            continue
        compiler = clang or find_tool("clang")
        yield f"compiling {source.name} with {Path(compiler).name}"
        compile_object(source, made, compiler)


def is_current(made: Path, source: Path) -> bool:
    """Tell whether an object is no older than its source, the headers and these flags."""
    if not made.exists():
        return False
    origins = [source, Path(__file__).resolve(), *HERE.glob("*.h")]
    return made.stat().st_mtime >= max(origin.stat().st_mtime for origin in origins)


def compile_object(source: Path, made: Path, clang: str) -> None:
    """Compile one program and put the object in place whole, never half-written."""
    made.parent.mkdir(parents=True, exist_ok=True)
    # -target bpf knows no multiarch directory; asm/types.h is there on Debian and Ubuntu.
    multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
    with tempfile.TemporaryDirectory(prefix="pidtrail-bpf-") as scratch:
        fresh = Path(scratch) / made.name
        run(clang, *FLAGS, "-idirafter", multiarch, "-I", HERE, "-c", source, "-o", fresh)
        run(find_tool("llvm-strip", beside=clang), "-g", fresh)
        fresh.chmod(0o644)
        # Two steps: the scratch directory may be on another file system.
        staged = made.with_name(f".{made.name}.{os.getpid()}")
        shutil.copy(fresh, staged)
        staged.replace(made)


def find_tool(name: str, *, beside: str = "") -> str:
    """
    Return the path of an LLVM tool, plain or with a version in its name.

    Of several versions the newest; but the version of `beside`, another of the
    tools, before all. Raises BuildError.
    """
    _, dash, version = Path(beside).name.partition("-")
    if dash and (found := shutil.which(f"{name}-{version}")):
        return found
    if found := shutil.which(name):
        return found
    for number in range(40, 9, -1):
        if found := shutil.which(f"{name}-{number}"):
            return found
    raise BuildError(
        f"{name} is not installed, and the BPF programs are not compiled yet:"
        " install clang and llvm, or use a wheel, which needs neither",
    )


def run(*command: str | Path) -> None:
    """Run one tool. Raises BuildError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    try:
        for said in build(OBJECTS):
            print(said)
    except BuildError as error:
        sys.exit(f"bpf: {error}")
