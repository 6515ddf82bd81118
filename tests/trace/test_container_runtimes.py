"""
Tasks in containers of real runtimes, watched from the host, ended by the runtime's own stop.

A runtime plays all cases at once, each container with a pidtrail of its own. Who stops
it is never traced: it is known by what the kernel says of the sender alone.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pytest

from pidtrail.verdict.model import ProcessReport, Report, Verdict
from tests.trace.runtime_host import (
    HERE,
    Host,
    Process,
    cgroups,
    host,
    members,
    wait_for_title,
)
from tests.trace.worker_stand_in import TASK

ROOT: Final = HERE.parents[1]
PIDTRAIL: Final = Path(sys.executable).with_name("pidtrail")
PATIENCE_S: Final = 60.0
WORKER: Final = f"airflow worker -- LocalExecutor: {TASK}"
RUNNER: Final = f"airflow worker -- {TASK}"
PYTHON: Final = "/usr/bin/python3"
# Titles are written over the arguments, so these are as long.
STAND_IN: Final = (PYTHON, "/srv/worker_stand_in.py", "0" * 100)
# As Airflow's image begins, and not as root either.
INIT: Final = ("/usr/bin/dumb-init", "--")
NOBODY: Final = ("--user=65534", "--env=OBEYS=1")


class Case(NamedTuple):
    """A container: the runtime's options, what begins it, and the title of who is traced."""

    options: tuple[str, ...] = ()
    init: tuple[str, ...] = ()
    traced: str | None = None


CASES: Final = {
    # Process 1 has no handler, so that SIGTERM does nothing to it.
    "timeout": Case(),
    "init": Case(NOBODY, INIT),
    "below-init": Case(NOBODY, INIT, WORKER),
    "no-namespace": Case(("--pid=host",), (), WORKER),
    "memory": Case(("--memory=64m",)),
}

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.needs_podman]


class Played(NamedTuple):
    """What a case was and what pidtrail says of it."""

    container: str
    runner: Process
    worker: Process
    verdict: Verdict

    def report(self, role: str) -> ProcessReport:
        """Return the one process of a role."""
        (found,) = [process for process in self.verdict.processes if process.role == role]
        return found


def start(on: Host, runtime: str, name: str, case: Case) -> str:
    """Start a container, with the host's root as its own; return its id."""
    words = (
        *(f"--runtime={runtime}", "run", "--detach"),
        *(f"--name={name}", "--network=none", "--pids-limit=-1", "--env=READY=/tmp/ready"),
        *(*case.options, "--rootfs", "/:O", *case.init, *STAND_IN),
    )
    return on.podman(*words).splitlines()[-1]


def attach(pid: int, recording: Path) -> subprocess.Popen[bytes]:
    """Start a pidtrail that follows a process; what it says goes beside its recording."""
    with recording.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [PIDTRAIL, "trace", "--pid", str(pid), "--format", "none", "-o", recording],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait_until_attached(recording: Path) -> None:
    """Wait until a pidtrail sees all that happens."""
    deadline = time.monotonic() + PATIENCE_S
    log = recording.with_suffix(".log")
    while "attached" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def play(runtime: str, folder: Path) -> dict[str, Played]:
    """Play all cases with one runtime of podman."""
    root = folder / "root"
    root.mkdir()
    started = {}
    with ExitStack() as stack:
        on = stack.enter_context(host(root))
        # By its text: a checkout below /tmp is not to be seen in there.
        stand_in = (HERE / "worker_stand_in.py").read_text(encoding="utf-8")
        on.run("sh", "-c", f'printf %s "$1" >{STAND_IN[1]}', "sh", stand_in)
        for name, case in CASES.items():
            container = start(on, runtime, name, case)
            runner = wait_for_title(container, RUNNER)
            worker = wait_for_title(container, WORKER)
            traced = worker if case.traced else members(container)[0]
            started[name] = (container, runner, worker, attach(traced.pid, folder / f"{name}.db"))
        for name in started:
            wait_until_attached(folder / f"{name}.db")
        os.kill(started["memory"][1].pid, signal.SIGUSR1)
        on.podman("stop", "--time=1", *CASES)
        for *_, pidtrail in started.values():
            assert pidtrail.wait(PATIENCE_S) == 0
    played = {}
    for name, (container, runner, worker, _) in started.items():
        told = subprocess.run(
            [PIDTRAIL, "explain", folder / f"{name}.db", "--json"], capture_output=True, check=True
        )
        (verdict,) = msgspec.json.decode(told.stdout, type=Report).verdicts
        played[name] = Played(container, runner, worker, verdict)
    return played


@functools.cache
def played_once(runtime: str, folder: Path) -> dict[str, Played]:
    folder.mkdir()
    return play(runtime, folder)


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of a runtime below podman."""
    return str(request.param)


@pytest.fixture
def cases(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """Return all cases, which are played when the first test asks for them."""
    return played_once(runtime, tmp_path_factory.getbasetemp() / f"containers-{runtime}")


@pytest.mark.parametrize("name", CASES)
def test_task_in_a_container_has_both_numbers_and_the_container(
    cases: dict[str, Played], name: str
) -> None:
    """The runtime's own id, and the number that Airflow would record in there."""
    case = cases[name]
    runner = case.report("runner")

    assert (runner.pid, runner.container) == (case.runner.pid, case.container)
    assert runner.ns_pids is not None
    assert runner.ns_pids[-1] == case.runner.inside
    assert (case.runner.inside < 10) == (name != "no-namespace")


def test_stop_that_ran_out_of_time_names_the_runtime(
    cases: dict[str, Played], runtime: str
) -> None:
    """It kills process 1 alone, and the kernel the others for it."""
    case = cases["timeout"]
    worker, runner = case.report("supervisor").killed_by, case.report("runner").killed_by

    assert worker is not None
    assert worker.sender is not None
    assert (worker.sig, worker.sender.comm) == (signal.SIGKILL, runtime)
    assert worker.sender.role == "container_runtime"
    assert runner is not None
    assert (runner.kind, runner.sig, runner.sender) == ("signal", signal.SIGKILL, None)
    assert runner.why == (
        f"process 1 of its PID namespace, its supervisor {case.worker.pid}, was ended by SIGKILL "
        f"from the container runtime, {runtime} {worker.sender.pid}"
    )
    assert runner.why in case.verdict.summary


@pytest.mark.parametrize("name", ["init", "below-init"])
def test_sigterm_that_an_init_passes_on_names_the_init(cases: dict[str, Played], name: str) -> None:
    """dumb-init sends it to all of its session; it is not root's, and may be untraced."""
    by = cases[name].report("runner").killed_by

    assert by is not None
    assert by.sender is not None
    assert (by.kind, by.sig) == ("signal", signal.SIGTERM)
    assert (by.sender.comm, by.sender.role) == ("dumb-init", "container_init")
    assert "SIGTERM by the container init, dumb-init" in cases[name].verdict.summary


def test_what_a_container_without_a_namespace_leaves_is_killed_by_the_runtime(
    cases: dict[str, Played], runtime: str
) -> None:
    """The supervisor has ended by SIGTERM, and nothing but its cgroup tells what was its."""
    by = cases["no-namespace"].report("runner").killed_by

    assert by is not None
    assert by.sender is not None
    assert (by.kind, by.sig) == ("signal", signal.SIGKILL)
    assert (by.sender.comm, by.sender.role) == (runtime, "container_runtime")


def test_limit_of_memory_is_told_from_a_stop(cases: dict[str, Played]) -> None:
    """The same SIGKILL from the kernel, and not for the end of process 1."""
    by = cases["memory"].report("runner").killed_by

    assert by is not None
    assert (by.kind, by.sig, by.why) == ("oom", signal.SIGKILL, None)
    assert "for want of memory" in cases["memory"].verdict.summary


def test_containers_of_a_killed_test_end_with_it(tmp_path: Path) -> None:
    """SIGKILL leaves it no time to clean up: the host reads an end of file."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pidtrail.lab.leftovers import owner\n"
        "from tests.trace.runtime_host import host\n"
        "with host(Path(sys.argv[1])) as on:\n"
        "    on.podman('run', '--detach', '--network=none', '--pids-limit=-1',\n"
        "        '--rootfs', '/:O', '/usr/bin/sleep', '300')\n"
        "    print(on.process.pid, owner(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    shell, mark = done.stdout.split()

    deadline = time.monotonic() + PATIENCE_S
    while Path("/proc", shell).exists():
        assert time.monotonic() < deadline, f"process {shell} is there"
        time.sleep(0.05)
    with cgroups() as places:
        assert [place for place in places if list(place.parent.glob(f"*{mark}*"))] == []
