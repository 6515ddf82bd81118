"""
The command line: the group of commands, and the one place where errors become exit codes.

A command is imported when it is called, so that `trace` carries nothing that
only `explain` needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn, TextIO

import click

from pidtrail import __version__
from pidtrail.cli.logs import log
from pidtrail.errors import PidtrailError
from pidtrail.reports.escape import visible
from pidtrail.reports.terminal import IN_PLAIN

COMMANDS: Final = {
    "doctor": ("pidtrail.cli.doctor:doctor", "Show what works on this host, and what does not."),
    "trace": (
        "pidtrail.cli.trace:trace",
        "Watch processes from the kernel, and explain every Airflow task instance among them.",
    ),
    "tree": (
        "pidtrail.cli.tree:tree",
        "Show the processes of a recording, or of the running service, as a tree.",
    ),
    "explain": (
        "pidtrail.cli.explain:explain",
        "Say for every task instance attempt which process ran it, and why its PID is another.",
    ),
    "agent": (
        "pidtrail.cli.agent:agent",
        "Run as a service: wait for Airflow, watch it, and keep what happened.",
    ),
    "airflow-plugin": (
        "pidtrail.cli.airflow_plugin:airflow_plugin",
        "Print Airflow's plugin, a single file for the folder of Airflow's plugins.",
    ),
    "export": ("pidtrail.cli.export:export", "Write a recording in another form."),
    "lab": (
        "pidtrail.cli.lab:lab",
        "Show by experiment what changes a PID on this kernel, and what does not.",
    ),
}
"""
Where each command is, and the first sentence of its help, so that the list of
commands needs none of them. In the order in which a new user meets them.
"""

FAILED: Final = 1
INTERRUPTED: Final = 130
"""128 + SIGINT, as a shell says it."""
NOBODY_READS: Final = 141
"""128 + SIGPIPE: what `head` does to those who write to it."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        place, _ = COMMANDS[cmd_name]
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How log lines on stderr are written.",
)
@click.version_option(__version__, prog_name="pidtrail", help="Show the version and exit.")
@click.pass_context
def cli(ctx: click.Context, log_format: str) -> None:
    """
    Tell which process really ran an Airflow task instance, with kernel evidence.

    \b
    Examples:
      pidtrail doctor                              what works on this host
      pidtrail trace -o session.db --airflow       watch the Airflow that runs here
      pidtrail explain session.db --dag sales      why its PIDs are what they are

    Exit status: 0 done, 1 it failed (one line on stderr says why), 2 wrong usage.
    `trace -- CMD` ends with CMD's own.
    """  # noqa: D301 (click wants the character \b itself)
    log.configure(log_format)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run pidtrail with these arguments, or those of the process, and exit."""
    fill_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 gets escapes for what it lacks, never an exception.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors=IN_PLAIN)  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:] if args is None else list(args)))


def fill_standard_streams() -> None:
    """
    Open what we were started without (`<&-`, `>&-`), so that no file of ours gets that number.

    As glibc does for privileged programs (csu/check_fds.c): whoever reads from there, or
    writes to stdout, learns that he cannot. What goes to stderr goes nowhere.
    """
    modes = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)
    for number, mode in enumerate(modes):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and those below are open by now.
            os.open(os.devnull, mode)
            os.set_inheritable(number, True)  # noqa: FBT003 (the standard library's signature)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def run(args: list[str]) -> int:
    """
    Run the command line and return the exit status.

    A command ends with another status than 0 by `ctx.exit(status)`, by
    sys.exit(status), or by an error. Not click's own main(): it says more than
    one line, and gives an interrupt and a closed pipe the status 1.
    """
    try:
        with cli.make_context("pidtrail", args) as ctx:
            cli.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return flushed(done.exit_code)
    except SystemExit as done:
        return flushed(done.code if isinstance(done.code, int) else int(done.code is not None))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "pidtrail"
        return complain(f"{error.format_message()} (`{where} --help` tells more)", error.exit_code)
    except click.ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        give_up_output()
        return INTERRUPTED
    except PidtrailError as error:
        return complain(str(error), error.exit_code)
    except BrokenPipeError:
        return hang_up()
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        return complain(f"{name}{error.strerror or error}", FAILED)
    return 0


def flushed(status: int) -> int:
    """Hand over what stdout still holds (`--help`, `--version`), and return the status."""
    try:
        sys.stdout.flush()
    except OSError:
        return hang_up()
    return status


def hang_up() -> int:
    """Let nothing more be written to a stdout that nobody reads, and return the status for it."""
    lead_nowhere(sys.stdout)
    return NOBODY_READS


def give_up_output() -> None:
    """
    Let nothing more be written: who interrupts does not want to wait for it.

    At its exit the interpreter hands over what a stream still holds, and stands still where
    nobody reads.
    """
    lead_nowhere(sys.stdout)
    lead_nowhere(sys.stderr)


def lead_nowhere(stream: TextIO) -> None:
    """Have what is written to a stream from now on go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def complain(message: str, status: int) -> int:
    """
    Say in one line on stderr what is wrong, and return the status.

    What stdout still holds is handed over first, or given up where it cannot
    be: at its exit the interpreter would try again, and make the status 120.
    """
    with contextlib.suppress(OSError):
        click.echo(f"pidtrail: {visible(message)}", err=True)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        hang_up()
    return status
