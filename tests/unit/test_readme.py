"""The README names every command that exists, and no command goes without help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from docs.tables import written
from pidtrail.cli import cli

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below and including this one, with the words that call it."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from walk(child, (*words, name))


COMMANDS = dict(walk(cli, ("pidtrail",)))


@pytest.mark.parametrize("called", COMMANDS)
def test_every_command_has_help(called: str) -> None:
    assert COMMANDS[called].help, f"{called} has no docstring"
    for parameter in COMMANDS[called].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{called} {parameter.opts[-1]} has no help"

    done = CliRunner().invoke(cli, [*called.split()[1:], "--help"])

    assert done.exit_code == 0, done.output
    assert done.output.startswith("Usage:")


@pytest.mark.parametrize("called", COMMANDS)
def test_every_command_stands_in_the_readme(called: str) -> None:
    assert f"`{called}" in README


def test_the_readme_names_no_command_that_is_not_there() -> None:
    named = set(re.findall(r"`pidtrail ([a-z-]+)", README))

    assert named <= {called.split()[1] for called in COMMANDS if " " in called}


def test_the_readme_gives_the_two_commands() -> None:
    for command in ("make demo", "make test", "./do demo", "./do test"):
        assert command in README


def test_the_tables_of_the_readme_are_what_the_code_says() -> None:
    """`python -m docs.tables` writes them; nobody does it by hand."""
    assert written(README) == README
