"""
The shape of the package: who may import whom, what stays pure, how long a file gets.

Walks the syntax trees; nothing is imported. A module that is not in LAYERS fails, so that
a new one is given its place when it is written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

AGENT = Path(__file__).resolve().parents[2] / "agent"

# From the top down: a module imports from lines below its own, never from above, and not
# from another module of its line.
LAYERS = (
    "cli",
    "runtime",
    "service | keeper | roots",
    "history",
    "reports | sinks | sources | store | lab | airflow",
    "index",
    "verdict",
    "correlate",
    "installations",
    "taskrun",
    "members | bulk | words",
    "tree | attribution | healing | standing | gap | overlap",
    "config",
    "airflow.lognames | node",
    "airflow.identify | codec",
    "airflow.commands",
    "airflow.facts",
    "events | clock | errors | redact | container | wstatus",
    "secretforms | shortoptions | bpf",
)

# These may import their neighbours: they are parts of one thing, or know the same fact.
NEIGHBOURS = {
    ("sources", "store"),  # a recording, replayed, is a source
    ("lab", "sources"),  # the lab watches what it does to its own children
    ("reports", "lab"),  # the form of a lab's result is the lab's
}

# No I/O, no clock, no threads: time and facts reach these inside records.
PURE = {
    *(
        "node",
        "tree",
        "attribution",
        "healing",
        "standing",
        "gap",
        "overlap",
        "members",
        "bulk",
        "words",
        "taskrun",
        "installations",
        "correlate",
        "verdict",
        "codec",
    ),
    *("events", "clock", "redact", "secretforms", "shortoptions", "container", "wstatus"),
    *("airflow.identify", "airflow.commands", "airflow.facts", "airflow.lognames"),
}
IMPURE_MODULES = {
    *("asyncio", "ctypes", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "random"),
    *("psutil", "resource", "select", "selectors", "shutil", "socket", "sqlite3", "subprocess"),
    *("tempfile", "threading", "time"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}

MOST_LINES = 450  # 400 is the aim; a file that passes it is probably two things

LEVELS = {name: level for level, line in enumerate(LAYERS) for name in line.split(" | ")}
MODULES = sorted(AGENT.glob("pidtrail/**/*.py"))


def dotted(path: Path) -> str:
    """Return a file's module name below `pidtrail`; "" for the package itself."""
    parts = path.relative_to(AGENT / "pidtrail").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def component(module: str) -> str | None:
    """Return the entry of LAYERS that a module belongs to: the longest that fits."""
    fitting = [name for name in LEVELS if module == name or module.startswith(f"{name}.")]
    return max(fitting, key=len, default=None)


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, by its full dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            source = node.module or ""
            yield source
            # `from pidtrail import tree` imports a module by its name.
            yield from (f"{source}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Return the entries of LAYERS that a file imports, its own left out."""
    modules = (name.removeprefix("pidtrail.") for name in imports(path) if "pidtrail." in name)
    return {entry for name in modules if (entry := component(name))} - {component(dotted(path))}


def names(paths: list[Path]) -> list[str]:
    return [dotted(path) or "pidtrail" for path in paths]


# The package itself, which holds its version alone, and the way in from `python -m pidtrail`.
PLACELESS = {"", "__main__"}
PLACED = [path for path in MODULES if dotted(path) not in PLACELESS]


def test_every_module_has_a_place() -> None:
    assert [name for name in names(PLACED) if component(name) is None] == []


@pytest.mark.parametrize("path", PLACED, ids=names(PLACED))
def test_imports_point_down(path: Path) -> None:
    mine = component(dotted(path))
    assert mine is not None, "no place in LAYERS"
    wrong = {
        other
        for other in own_imports(path)
        if LEVELS[other] <= LEVELS[mine] and (mine, other) not in NEIGHBOURS
    }
    assert wrong == set(), f"{mine} may not import {wrong}"


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert own_imports(AGENT / "pidtrail" / "__init__.py") == set()


PURE_FILES = [path for path in PLACED if component(dotted(path)) in PURE]


@pytest.mark.parametrize("path", PURE_FILES, ids=names(PURE_FILES))
def test_the_middle_does_no_io(path: Path) -> None:
    imported = {name.partition(".")[0] for name in imports(path)}
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }

    assert imported & IMPURE_MODULES == set()
    assert called & IMPURE_CALLS == set()


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_file_is_one_thing(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "no module docstring"
