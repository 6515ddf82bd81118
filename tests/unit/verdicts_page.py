"""
Makes docs/verdicts.md: the rules' own docstrings, each with a story and what is said of it.

    .venv/bin/python -m tests.unit.verdicts_page

A test fails while the page is not what this makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pidtrail.verdict.meaning import meaning
from pidtrail.verdict.rules import RULES, code_of
from tests.airflow.examples import Example, examples
from tests.unit.example_stories import EXAMPLES

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/verdicts.md"
HEAD: Final = """\
# Verdicts

`pidtrail explain` gives each attempt of each task instance one of these codes. `pidtrail explain
--code CODE` prints the same of one of them, without the example.

The rules are asked in the order of this page and the first answer stands. Each is a small
function of the records alone, so a recording can be judged anew by later rules. What a rule needs
and does not have makes it silent, or the verdict less confident; `unknowns` says what is missing.

The outcome is `match` (the process on record ran the attempt), `explained` (two processes or two
numbers, for a known reason), `conflict` (there should have been one), or `undetermined`.

This page is made from the rules by `.venv/bin/python -m tests.unit.verdicts_page`. The examples
are short stories from the tests, with invented numbers, and runs of a real Airflow, which
`.venv/bin/python -m tests.airflow.examples` takes from the recordings of the tests.
"""


def page() -> str:
    """Return the page."""
    codes = [code_of(rule) for rule in RULES]
    lines = [HEAD, "| code | outcome of the example | says |", "|---|---|---|"]
    for code in codes:
        story, try_number = EXAMPLES[code]()
        outcome = story.verdict(try_number).outcome
        lines.append(f"| [`{code}`](#{code}) | {outcome} | {meaning(code).says} |")
    for code in codes:
        lines += ["", *section(code)]
    return "\n".join(lines) + "\n"


def section(code: str) -> Iterator[str]:
    """Yield the lines about one code."""
    story, try_number = EXAMPLES[code]()
    verdict = story.verdict(try_number)
    meant = meaning(code)
    yield f"## {code}"
    yield ""
    yield meant.says
    yield ""
    yield f"- **Concludes**: {meant.concludes}"
    yield f"- **Needs**: {meant.needs}"
    yield f"- **Cannot tell**: {meant.cannot_tell}"
    yield ""
    yield f"Example ({verdict.outcome}, {verdict.confidence}): {inspect.getdoc(EXAMPLES[code])}"
    yield ""
    yield f"> {verdict.summary}"
    for unknown in verdict.unknowns:
        yield ">"
        yield f"> Not known: {unknown}"
    real = examples().get(code)
    if real is not None:
        yield from real_run(real)


def real_run(example: Example) -> Iterator[str]:
    """Yield the lines about a run of a real Airflow."""
    yield ""
    yield (
        f"A real run (Airflow {example.airflow}, {example.outcome}, {example.confidence}): "
        f"{example.done}"
    )
    yield ""
    yield f"> {example.summary}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
