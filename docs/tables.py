"""
The tables in README.md that follow from the code: `python -m docs.tables` writes them anew.

Each stands between two comments that name it; tests/unit/test_readme.py fails
while one of them is not what the code says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pidtrail.sources.ladder import SOURCES, make

if TYPE_CHECKING:
    from pidtrail.events import Fidelity

README: Final = Path(__file__).resolve().parent.parent / "README.md"
WORDS: Final = {
    "sees_short_lived": "a process however short its life",
    "has_lineage": "the parent, also under CLONE_PARENT and at the end",
    "has_identity": "start, all PID namespaces, cgroup, count of images",
    "has_start_ns": "the start to the nanosecond",
    "has_argv": "arguments of each new program",
    "has_titles": "each change of title",
    "has_wstatus": "the wait status at the end",
    "has_counters": "switches, faults, migrations, CPU time",
    "has_signals": "signals with their sender, OOM victims",
    "has_reaps": "when the dead process was collected",
    "counts_loss": "its own losses, exactly",
}


def fidelity_table() -> str:
    """Return what each source declares to know, best source first."""
    declared: dict[str, Fidelity] = {name: make(name).fidelity for name in SOURCES}
    lines = [
        f"| it knows of every process | {' | '.join(f'`{name}`' for name in declared)} |",
        f"|---|{'---|' * len(declared)}",
    ]
    for field, words in WORDS.items():
        cells = ["yes" if getattr(one, field) else "–" for one in declared.values()]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    for name, one in declared.items():
        if one.expected_miss is not None:
            lines.append(f"\n`{name}` is known to miss: {one.expected_miss}.")
    return "\n".join(lines)


TABLES: Final = {"fidelity": fidelity_table}


def written(text: str) -> str:
    """Return a text with every table in it as the code says now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        anew = f"{begin}\n{table()}\n{end}".replace("\\", "\\\\")
        text = pattern.sub(anew, text)
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
