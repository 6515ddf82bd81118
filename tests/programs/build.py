"""
Compiles the C programs of this directory, once per change, into build/programs.

There, and not in a directory of pytest's, so that a user without rights can run
them too (pytest's are closed to others).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINARIES = HERE.parents[1] / "build" / "programs"
FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread")


def program(name: str) -> Path:
    """Return the path of a compiled program, after compiling it if it is older than its source."""
    source, made = HERE / f"{name}.c", BINARIES / name
    newest = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if made.exists() and made.stat().st_mtime >= newest:
        return made
    BINARIES.mkdir(parents=True, exist_ok=True)
    # Put in place whole: another test run may be about to execute it.
    staged = made.with_name(f".{name}.{os.getpid()}")
    subprocess.run(["gcc", *FLAGS, "-o", staged, source], check=True)
    staged.replace(made)
    return made
