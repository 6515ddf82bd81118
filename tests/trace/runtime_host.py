"""A host of its own for container runtimes, and the containers that one of them runs there."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pidtrail.container import place_of
from pidtrail.lab.cgroup import tops
from pidtrail.sources import proc
from tests.contract.kubelet import directory_in

HERE: Final = Path(__file__).parent
SCRIPT: Final = HERE / "runtime_host.sh"
PATIENCE_S: Final = 30.0
END: Final = "-- status "


class Process(NamedTuple):
    """A process in a container: its number here and in there, and what it calls itself."""

    pid: int
    inside: int
    title: str


class Host:
    """Runs commands of a shell in `runtime_host.sh`, one after the other."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def run(self, *command: str) -> str:
        """Return what a command says. Raises AssertionError if it fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # What stays in the background must not hold the pipe that we read.
        wrapped = f"{shlex.join(command)} </dev/null >/run/said 2>&1; status=$?; cat /run/said"
        self.process.stdin.write(f'{wrapped}; echo; echo "{END}$status"\n'.encode())
        self.process.stdin.flush()
        said = ""
        for line in map(bytes.decode, self.process.stdout):
            if line.startswith(END):
                assert line == f"{END}0\n", f"{command}: {line.strip()}: {said.strip()}"
                return said.strip()
            said += line
        raise AssertionError(f"{command}: the host ended: {said.strip()}")

    def podman(self, *words: str) -> str:
        """Return what podman says; cgroups are made by itself, and not by a systemd."""
        return self.run("podman", "--cgroup-manager=cgroupfs", *words)


@contextlib.contextmanager
def cgroups() -> Iterator[list[Path]]:
    """Give what a host has of each hierarchy."""
    unified, controllers = tops()
    hierarchies = {*controllers.values(), *([unified] if unified is not None else [])}
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(directory_in(top)) for top in sorted(hierarchies)]


def command(folder: Path, places: list[Path], shared: tuple[Path, ...] = ()) -> list[str]:
    """Return what starts a host with its root in `folder`, which shares some folders with ours."""
    return [str(SCRIPT), str(folder), "\n".join(map(str, shared)), *map(str, places)]


@contextlib.contextmanager
def host(folder: Path) -> Iterator[Host]:
    """Give a host with its root in `folder`; all that ran on it has ended afterwards."""
    with cgroups() as places:
        process = subprocess.Popen(
            command(folder, places), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield Host(process)
        finally:
            # Its first process goes with it, and with that one all others in there.
            process.kill()
            process.communicate()


def members(container: str) -> list[Process]:
    """Return the processes in a container, its process 1 first if it has one."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    inside = [pid for pid in numbers if place_of(proc.cgroup(pid) or "").container_id == container]
    found = [
        Process(pid, (proc.ns_pids(pid) or [pid])[-1], " ".join(proc.argv(pid) or ()).rstrip())
        for pid in inside
    ]
    # Not by the number here: those come round.
    return sorted(found, key=lambda process: process.inside)


def wait_for_title(container: str, title: str) -> Process:
    """Return the process in a container that calls itself so, when there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for process in members(container):
            if process.title == title:
                return process
        time.sleep(0.05)
    raise AssertionError(f"no {title!r} in container {container}: {members(container)}")
