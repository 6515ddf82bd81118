"""
Another user's command by sudo, with and without a terminal.

sudo stays as the parent of the command (src/exec_nopty.c), and with a pseudo-terminal
of its own there is a monitor between (src/exec_pty.c). Whoever compares the PID of what
was started with the PID of what runs compares two processes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
from collections.abc import Iterator
from typing import Final

from pidtrail.events import Event, Exec, Exit, Fork
from pidtrail.lab.bench import Bench, Puppet, Skip
from pidtrail.lab.experiment import Experiment, Pair, Trial, least, need_root
from pidtrail.lab.fork import TWO
from pidtrail.lab.identity import of_birth
from pidtrail.lab.model import Check

SECONDS: Final = "0.05"


class SudoChain(Experiment):
    """The real sudo, as root, asked to run a short command."""

    name = "sudo-chain"
    claim = "A command run by sudo is another process than the sudo that was started"
    family = "new"
    expected = TWO
    wants = least(exec=2)
    headline = ("levels_without_terminal", "levels_with_terminal")

    def missing(self) -> str | None:
        """It needs sudo, and root so that it asks for no password."""
        return need_root() or (
            None if shutil.which("sudo") else "it needs sudo, which is not installed here"
        )

    def act(self, bench: Bench) -> Pair:
        """Run a command without a terminal, and with one."""
        argv = ["sudo", "-n", "--", "sleep", SECONDS]
        plain = bench.fork()
        plain.tell("become", argv=argv)
        bench.await_end(plain)
        with_tty = in_terminal(bench, argv)
        bench.until(lambda: command_of(bench.events, with_tty.pid) is not None, 1.0)
        chains = [chain(bench.events, puppet.pid) for puppet in (plain, with_tty)]
        if not all(chains):
            code = [e.exit_code for e in bench.of(Exit, plain)]
            raise Skip(f"sudo did not run the command here (exit status {code})")
        birth, end = chains[0][-1], chains[0][0]
        if birth.pid == end.pid:
            raise Skip("sudo became the command itself here, without a fork")
        return Pair(of_birth(birth), of_birth(end), {"chains": chains})

    def counts(self, trial: Trial) -> dict[str, int]:
        """Return how many processes there are from sudo down to the command."""
        plain, with_tty = trial.facts["chains"]
        return {
            "levels_without_terminal": len(plain),
            "levels_with_terminal": len(with_tty),
        }

    def checks(self, trial: Trial) -> Iterator[Check]:
        """Yield that there are several processes either way."""
        yield Check(
            "sudo and the command are two processes at least, with a terminal and without",
            all(len(links) >= 2 for links in trial.facts["chains"]),
        )

    def notes(self, trial: Trial) -> list[str]:
        """Return the two chains."""
        plain, with_tty = trial.facts["chains"]
        return [
            f"without a terminal: {arrows(plain, trial.events)}",
            f"with a terminal: {arrows(with_tty, trial.events)}",
        ]


def in_terminal(bench: Bench, argv: list[str]) -> Puppet:
    """Let a puppet become a command in a terminal of its own, and read that until the end."""
    ours, theirs = os.openpty()
    try:
        puppet = bench.fork()
        puppet.tell("become", theirs, argv=argv)
        os.close(theirs)

        def ended() -> bool:
            # Who reads a terminal that nobody has open any more gets EIO.
            with contextlib.suppress(OSError):
                while select.select([ours], [], [], 0)[0] and os.read(ours, 4096):
                    pass
            return bool(select.select([puppet.pidfd], [], [], 0)[0])

        if not bench.until(ended):
            raise Skip("sudo did not end in a terminal here: does it ask for something?")
    finally:
        os.close(ours)
    return puppet


def command_of(events: list[Event], pid: int) -> Fork | None:
    """Return the birth of the process below `pid` that became the command."""
    births = {e.pid: e for e in events if isinstance(e, Fork)}
    for event in events:
        if isinstance(event, Exec) and program(event) == "sleep" and event.pid in births:
            below: int | None = event.pid
            while below is not None and below != pid:
                birth = births.get(below)
                below = None if birth is None else birth.ppid
            if below == pid:
                return births[event.pid]
    return None


def chain(events: list[Event], pid: int) -> list[Fork]:
    """Return the births from the command up to `pid`, that of the command first."""
    births = {e.pid: e for e in events if isinstance(e, Fork)}
    found = command_of(events, pid)
    links: list[Fork] = []
    while found is not None:
        links.append(found)
        if found.pid == pid:
            return links
        found = births.get(found.ppid)
    return []


def arrows(links: list[Fork], events: list[Event]) -> str:
    """Return a chain in words, from the top down."""
    names = {e.pid: program(e) for e in events if isinstance(e, Exec)}
    return " > ".join(f"{birth.pid} {names.get(birth.pid, 'sudo')}" for birth in reversed(links))


def program(event: Exec) -> str:
    """Return the name of the program that a process became."""
    name = event.filename or (event.argv or [""])[0]
    return os.path.basename(name)  # noqa: PTH119 (of a text that may be anything)
