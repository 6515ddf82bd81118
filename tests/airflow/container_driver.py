"""
Plays the cases in containers on one real Airflow 3.x: what three pidtrails watch at once.

    python -m tests.airflow.container_driver VERSION HOME

There are two nodes (`tests.airflow.node`), each a host by its PID and UTS
namespace, and a scheduler with LocalExecutor in a container with few numbers;
api-server and dag-processor run beside them. Begins when a line comes on stdin, writes
what was done to HOME/result.json, and stops everything when a second line comes.
Status 0 when all was played, else 1 and one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo import ROOT
from demo.airflow3 import Airflow3
from demo.environment import InstallError, Release, install, say
from demo.processes import (
    Identity,
    Ledger,
    Piece,
    StageError,
    identity_of,
    is_alive,
    send_signal,
    stop_on_signals,
    wait_until,
)
from tests.contract.kubelet import directory

DAGS = Path(__file__).with_name("pod_dags")
PIDTRAIL = Path(sys.executable).with_name("pidtrail")
RUN_ID = "test"
NODES = ("node-1", "node-2")
WORKER = "airflow-0"
PODS = ("pod_1", "pod_2", "pod_retry")
PID_MAX = 400
ROUNDS = 12
# The shell stays, as the init that collects orphans; a scheduler as process 1 does not.
SET_UP = """
echo "$1" >/proc/sys/kernel/hostname && echo "$2" >/proc/sys/kernel/pid_max && shift 2 && "$@"
exit $?
"""
UNSHARED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")
ENTER = (*UNSHARED, "sh", "-c", SET_UP, "sh")
"""A host of its own; then its name, the highest number in it, and the command."""


class Contained(Airflow3):
    """An Airflow whose scheduler is in a container, and whose pods run on nodes."""

    def __init__(self, release: Release, ledger: Ledger) -> None:
        super().__init__(release, ledger, DAGS, parallelism=4)
        self.nodes_folder = self.home / "nodes"
        self.boxes: dict[str, Piece] = {}

    def version_settings(self) -> dict[str, str]:
        """Two executors, and for the container a name that it does not have."""
        return super().version_settings() | {
            "CORE__EXECUTOR": "LocalExecutor,pods:tests.airflow.pod_executor.PodExecutor",
        }

    def spawn(self, name: str, *command: str) -> Piece:
        """Start one part; the scheduler in its container."""
        if not name.startswith("scheduler"):
            return super().spawn(name, *command)
        argv = [str(self._release.python), str(self._release.command), *command]
        renamed = "tests.airflow.pod_executor.name_of_old"
        environ = self.environ() | {"AIRFLOW__CORE__HOSTNAME_CALLABLE": renamed}
        return self.box(WORKER, argv, environ, pid_max=PID_MAX)

    def box(
        self, hostname: str, argv: list[str], environ: dict[str, str], *, pid_max: int
    ) -> Piece:
        """Start a part as the first process of a host of its own."""
        command = [*ENTER, hostname, str(pid_max), *argv]
        self.boxes[hostname] = self._ledger.spawn(hostname, command, environ)
        return self.boxes[hostname]

    def start_node(self, name: str, cgroups: Path) -> None:
        """Start a node that runs pods in cgroups below `cgroups`."""
        folder = self.nodes_folder / name
        folder.mkdir(parents=True)
        words = (str(folder), str(cgroups), str(self._release.python))
        argv = [sys.executable, "-m", "tests.airflow.node", *words]
        self.box(name, argv, self.environ(), pid_max=32768)

    def first_of(self, hostname: str) -> int:
        """Return the number, here, of the process that is 1 in a host of ours."""
        pid = self.boxes[hostname].process.pid

        def inside() -> int | None:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return int(children[0]) if children else None

        return wait_until(inside, within_s=10, what=f"the first process of {hostname}") or 0


def within(pid: int, *command: str) -> list[str]:
    """Return the command that runs another in the namespaces of a process."""
    return ["nsenter", "--target", str(pid), "--pid", "--mount", "--uts", *command]


class Numbers:
    """Lets numbers go by in the container, until one that is asked for is next, or taken."""

    def __init__(self, host: Contained, ledger: Ledger) -> None:
        self.ledger, self.pid = ledger, host.first_of(WORKER)
        self.argv = (sys.executable, "-m", "tests.airflow.numbers")
        # Who enters a mount namespace is put into its root, where no module of ours is.
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def ask(self, what: str, number: int) -> str:
        """Run `tests.airflow.numbers` in there and return what it says."""
        command = within(self.pid, *self.argv, what, str(number))
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise StageError(f"numbers {what} {number}: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()

    def hold(self, number: int) -> Piece:
        """Have a process take a number, and keep it."""
        command = within(self.pid, *self.argv, "hold", str(number))
        return self.ledger.spawn("holder", command, self.environ)


@contextlib.contextmanager
def watched(host: Contained, hostname: str) -> Iterator[None]:
    """Let a pidtrail watch a host from inside, until the end."""
    recording = host.home / f"{hostname}.db"
    options = ["--pid", "1", "--format", "none", "--airflow-db", host.database]
    command = [str(PIDTRAIL), "trace", *options, "-o", str(recording)]
    log = host.home / f"trace-{hostname}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            within(host.first_of(hostname), *command), stdout=output, stderr=output
        )
    try:
        wait_until(
            lambda: "attached" in log.read_text() or process.poll() is not None,
            within_s=30,
            what=f"pidtrail in {hostname}",
        )
        yield
    finally:
        # nsenter forks the command and waits: the command is who must hear it.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in filter(None, (identity_of(int(pid)) for pid in children)):
            send_signal(child, signal.SIGTERM)
        status = process.wait(30)
    if status:
        raise StageError(f"pidtrail in {hostname}: status {status}: {log.read_text()[-300:]}")


def lose(host: Contained) -> tuple[int, Identity]:
    """Kill a runner with its supervisor, so that its row stands; return its number and itself."""
    host.trigger("case_lost", RUN_ID)
    note = host.wait_for_note("case_lost", within_s=60)[0]
    runner = next(process for process in inside_of(host) if note.pid == number_of(process))
    parent = int(Path(f"/proc/{runner.pid}/stat").read_text().rpartition(")")[2].split()[1])
    supervisor = identity_of(parent)
    for process in (runner, supervisor):
        if process is None or not send_signal(process, signal.SIGKILL):
            raise StageError("the lost task ended before it could be killed")
    wait_until(lambda: not is_alive(runner), within_s=10, what="the end of the lost task")
    return note.pid, runner


def inside_of(host: Contained) -> list[Identity]:
    """Return who lives in the scheduler's container."""
    first = host.first_of(WORKER)
    namespace = Path(f"/proc/{first}/ns/pid").readlink()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                if (path / "ns/pid").readlink() == namespace:
                    found.append(identity_of(int(path.name)))
    return [process for process in found if process is not None]


def number_of(process: Identity) -> int | None:
    """Return the number of a process in its innermost PID namespace."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None


def repeat(host: Contained, numbers: Numbers) -> list[str]:
    """Run a short task until two of its runs have had one number; return these two run ids."""
    seen: dict[int, str] = {}
    for count in range(ROUNDS):
        run = f"{RUN_ID}-{count}"
        host.trigger("case_local", run)
        note = host.wait_for_note("case_local", count=count + 1, within_s=60)[-1]
        if note.pid in seen:
            return [seen[note.pid], run]
        seen[note.pid] = run
        host.wait_for_end("case_local", run, within_s=60)
        numbers.ask("pass", note.pid)
    raise StageError(f"no number came twice in {ROUNDS} runs: {sorted(seen)}")


def play(host: Contained, ledger: Ledger) -> dict[str, Any]:
    """Run all cases; return what was done."""
    begin = time.monotonic()

    def tell(line: str) -> None:
        say(f"[{time.monotonic() - begin:5.1f} s] {line}")

    host.wait_for_dags({f"case_{case}" for case in (*PODS, "local", "lost")})
    tell("Airflow is ready")
    numbers = Numbers(host, ledger)
    for case in PODS:
        host.trigger(f"case_{case}", RUN_ID)
    # Numbers below 300 are given once only; from here on each comes round.
    numbers.ask("wrap", 0)
    lost, runner = lose(host)
    holder = numbers.hold(lost)
    wait_until(
        lambda: any(number_of(process) == lost for process in inside_of(host)),
        within_s=30,
        what=f"a process that takes number {lost}",
    )
    tell(f"{lost} was the number of a task, and is another process's")
    twins = repeat(host, numbers)
    tell(f"two runs had one number: {twins}")
    states = {case: host.wait_for_end(f"case_{case}", RUN_ID, within_s=100) for case in PODS}
    tell(f"ended: {states}")
    ledger.check()
    held = next(process for process in inside_of(host) if number_of(process) == lost)
    return {
        "states": states,
        "twins": twins,
        "lost": {"number": lost, "runner": runner, "holder": held, "via": holder.process},
        "pods": [json.loads(path.read_text()) for path in host.nodes_folder.glob("*/*.pod")],
    }


def main(version: str, home: Path) -> int:
    """Play when told, stop when told; status as the module says."""
    stop_on_signals()
    sys.stdin.readline()
    try:
        release = install(version)
        home.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(home)
        host = Contained(release, ledger)
        with directory(2) as cgroups:
            try:
                for node in NODES:
                    host.start_node(node, cgroups)
                host.start()
                with watched(host, WORKER), watched(host, NODES[0]):
                    done = play(host, ledger)
                (home / "result.json").write_text(json.dumps(done, indent=1))
                sys.stdin.readline()
            finally:
                ledger.stop_all(grace_s=1)
    except (StageError, InstallError, subprocess.SubprocessError) as error:
        say(f"Airflow {version} in containers: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
