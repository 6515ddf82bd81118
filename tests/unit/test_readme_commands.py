"""Every command line that README and docs give is one that pidtrail takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from pidtrail.airflow.schema import TABLES
from pidtrail.cli import cli
from pidtrail.lab.catalogue import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def given() -> list[str]:
    """Return the command lines in blocks of commands, and in claims.md those of its text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            found += [line for line in block.splitlines() if line.startswith("pidtrail ")]
        found += re.findall(r"`(pidtrail lab [^`]+)`", text)
    return list(dict.fromkeys(found))


def words_of(line: str) -> list[str]:
    """Return the words that pidtrail gets: no comment, no pipe, a number for what a shell asks."""
    line = re.sub(r"\$\([^)]*\)", "1", line)
    return shlex.split(re.split(r"\s[|>]\s", line)[0], comments=True)[1:]


@pytest.mark.parametrize("line", given())
def test_a_command_line_of_the_pages_is_taken(line: str) -> None:
    """Its options exist and its values are of their kind; nothing is run."""
    name, *args = words_of(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name

    context = command.make_context(name, args)

    if name == "lab":
        assert set(context.params["names"]) <= set(EXPERIMENTS)


def test_the_tables_that_are_read_are_named() -> None:
    """Who gives a database user no more than is needed must give all of that."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"needs SELECT, and nothing else,\son\s(.*?)\.\n", readme, re.DOTALL)

    assert set(re.findall(r"`(\w+)`", named)) == TABLES


def test_the_pages_have_command_lines() -> None:
    assert len(given()) > 20
