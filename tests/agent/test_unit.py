"""The unit under a real systemd: it starts, follows, comes back, and ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pidtrail import codec
from pidtrail.events import Event, Exit, Fork, Lost, Observed, Title
from pidtrail.sources import proc
from tests.agent.conftest import wait_for
from tests.contract.kubelet import directory

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
BOOT = CHECKOUT / "tests/programs/boot.sh"
HISTORY = "/var/lib/pidtrail/history"
FOUR = {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}
NUMBERS = {39: "CAP_BPF", 38: "CAP_PERFMON", 19: "CAP_SYS_PTRACE", 2: "CAP_DAC_READ_SEARCH"}
"""include/uapi/linux/capability.h"""

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_systemd,
]


class Machine:
    """A systemd that runs, with the unit installed; tasks have numbers that no other test used."""

    def __init__(self, cgroup: Path, folder: Path) -> None:
        self.started = subprocess.Popen(
            ["sh", BOOT, cgroup, folder, HERE / "machine.sh", CHECKOUT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.tasks = 0
        self.first = wait_for(self.systemd, "systemd")
        wait_for(lambda: self.call("systemctl", "is-active", "play.target") == "active", "the boot")

    def systemd(self) -> int | None:
        """Return the number of its first process, once that is systemd."""
        assert self.started.poll() is None, "the machine did not boot"
        pid = next(iter(proc.children_of_all().get(self.started.pid, ())), None)
        return pid if pid is not None and proc.comm(pid) == "systemd" else None

    def call(self, *command: str, environ: dict[str, str] | None = None) -> str:
        """Run a command in it as root, and return what it printed."""
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd"]
        words = [f"{name}={value}" for name, value in (environ or {}).items()]
        done = subprocess.run(
            ["nsenter", f"--target={self.first}", *spaces, "--", "env", *words, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.call("systemctl", "show", "--value", f"--property={name}", "pidtrail")

    def start(self) -> None:
        """Start it; systemctl returns when it says that it is ready."""
        self.call("systemctl", "reset-failed", "pidtrail")
        self.call("systemctl", "start", "pidtrail")
        assert self.show("ActiveState") == "active", self.call("cat", "/run/log")

    def status(self, name: str) -> str:
        """Return a field of /proc/PID/status of the service."""
        text = self.call("cat", f"/proc/{self.show('MainPID')}/status")
        (line,) = [one for one in text.splitlines() if one.startswith(f"{name}:")]
        return line.partition(":")[2].strip()

    def events(self) -> list[Event]:
        """Return all that was recorded."""
        told = [sys.executable, str(HERE / "told.py"), HISTORY]
        path = {"PYTHONPATH": str(CHECKOUT / "agent")}
        return [codec.decode(line) for line in self.call(*told, environ=path).splitlines()]

    def run(self) -> tuple[str, int]:
        """Let Airflow run a task; return its id, and its runner's number when that was told."""
        self.tasks += 1
        task = f"01a201d9-c083-7000-8000-{self.tasks:012d}"
        self.call("sh", "-c", f"echo {task} >/run/fifo")
        return task, wait_for(lambda: self.runner(task), f"the runner of {task}")

    def runner(self, task: str) -> int | None:
        """Return who called itself the runner of a task."""
        name = f"airflow worker -- {task}"
        found = [
            event.pid
            for event in self.events()
            if (isinstance(event, Title) and event.title == name)
            or (isinstance(event, Observed) and event.argv == [name])
        ]
        return found[-1] if found else None

    def finish(self, task: str) -> None:
        """Let a task end."""
        self.call("touch", f"/run/tasks/{task}")

    def has(self, kind: type, pid: int) -> bool:
        """Return whether a record of a kind was told of a process."""
        return any(isinstance(event, kind) and event.pid == pid for event in self.events())

    def end(self) -> None:
        """Power off, hard."""
        self.started.kill()
        self.started.wait()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return the machine; each test starts the service, and may find it running."""
    with directory(2) as cgroup:
        made = Machine(Path(cgroup), tmp_path_factory.mktemp("root"))
        yield made
        made.end()


def test_it_runs_with_four_capabilities_and_nothing_else(machine: Machine) -> None:
    """Not root, no more rights to be had, system calls filtered, and its start is over."""
    machine.start()
    sets = {name: int(machine.status(name), 16) for name in ("CapEff", "CapPrm", "CapBnd")}
    uid = machine.call("id", "-u", "pidtrail")

    assert uid not in {"", "0"}
    assert machine.status("Uid").split() == [uid] * 4
    assert {name: held(value) for name, value in sets.items()} == dict.fromkeys(sets, FOUR)
    assert machine.status("NoNewPrivs") == "1"
    assert machine.status("Seccomp") == "2"
    assert wait_for(lambda: machine.show("StatusText"), "a word").startswith("source core, ")


def held(capabilities: int) -> set[str]:
    """Return the names of capabilities; of those that are not among the four, the numbers."""
    return {NUMBERS.get(n, str(n)) for n in range(64) if capabilities >> n & 1}


def test_it_follows_an_airflow_of_another_user_through_a_restart(machine: Machine) -> None:
    """From the birth of each runner to its end, before and after."""
    machine.start()
    for _ in range(2):
        machine.call("systemctl", "restart", "airflow")
        scheduler = machine.call("systemctl", "show", "--value", "-p", "MainPID", "airflow")
        wait_for(partial(machine.has, Observed, int(scheduler)), "the scheduler")
        task, pid = machine.run()
        machine.finish(task)
        wait_for(partial(machine.has, Exit, pid), "the end of the runner")
        assert machine.has(Fork, pid)


def test_killed_it_comes_back_and_says_what_it_missed(machine: Machine) -> None:
    """The numbers go on, and what lived through it is recorded to its end."""
    machine.start()
    machine.call("systemctl", "restart", "airflow")
    task, pid = machine.run()
    before = machine.events()
    process = machine.show("MainPID")
    machine.call("systemctl", "kill", "--signal=KILL", "pidtrail")
    came_back(machine, process)
    machine.finish(task)
    wait_for(partial(machine.has, Exit, pid), "the end of the runner")
    events = machine.events()

    assert events[: len(before)] == before
    (lost,) = [event for event in events[len(before) :] if isinstance(event, Lost)]
    assert lost.count is None
    assert lost.reason == "the service did not run"
    assert [event.seq for event in events] == sorted({event.seq for event in events})


def test_standing_still_it_is_ended_by_the_watchdog_and_comes_back(machine: Machine) -> None:
    machine.start()
    process = machine.show("MainPID")
    machine.call("kill", "-STOP", process)
    came_back(machine, process)

    assert machine.call("sh", "-c", f"kill -0 {process} 2>&1") != ""


def came_back(machine: Machine, process: str) -> None:
    """Wait until the service runs as another process, and is ready."""
    wait_for(
        lambda: (
            machine.show("ActiveState") == "active"
            and machine.show("MainPID") not in {"0", process}
        ),
        "the service to come back",
    )


def test_it_stops_cleanly(machine: Machine) -> None:
    """Its files are finished, its sockets gone; the folder stays for who has it mounted."""
    machine.start()
    wait_for(lambda: machine.call("ls", "/run/pidtrail").count(".sock\n"), "the sockets")
    machine.call("systemctl", "stop", "pidtrail")

    assert machine.show("Result") == "success"
    assert machine.show("ExecMainStatus") == "0"
    kept = machine.call("ls", HISTORY).splitlines()
    assert {name.rpartition(".")[2] for name in kept} == {"db", "lock"}
    assert [n for n in machine.call("ls", "/run/pidtrail").splitlines() if n[-5:] == ".sock"] == []
    assert machine.call("stat", "-c", "%U %a", "/run/pidtrail") == "pidtrail 755"
    assert machine.call("stat", "-c", "%U %a", "/var/lib/pidtrail") == "pidtrail 750"


def test_a_reload_changes_settings_and_starts_nothing_anew(machine: Machine) -> None:
    """With the unit's own ExecReload, and the same process before and after."""
    settings = "/etc/pidtrail/pidtrail.toml"
    machine.start()
    process, lines = machine.show("MainPID"), machine.call("wc", "-l", "/run/log").split()[0]
    machine.call("cp", settings, "/run/good")
    changed = f"sed -i 's/^# max_age = .*/max_age = \"3d\"/' {settings}; systemctl reload pidtrail"
    reloaded = machine.call("sh", "-c", f"({changed}) 2>&1; echo $?")
    said = f"tail -n+$(({lines} + 1)) /run/log | grep"
    taken = wait_for(lambda: machine.call("sh", "-c", f"{said} 'read again'"), "the word on it")
    machine.call("sh", "-c", f"echo '[histery]' >>{settings}")
    refused = machine.call("sh", "-c", "systemctl reload pidtrail >&2; echo $?")
    named = machine.call("sh", "-c", f"{said} histery")
    machine.call("cp", "/run/good", settings)

    assert reloaded == "0"
    assert json.loads(taken)["taken"] == ["[history] max_age"]
    assert refused == "1"
    assert named == f"pidtrail: {settings}: [histery]: there is no such setting"
    assert (machine.show("ActiveState"), machine.show("MainPID")) == ("active", process)


def test_wrong_settings_are_named_and_end_the_start(machine: Machine) -> None:
    settings = "/etc/pidtrail/pidtrail.toml"
    machine.call("systemctl", "stop", "pidtrail")
    machine.call("sh", "-c", f"cp {settings} /run/good; echo '[histery]' >>{settings}")
    machine.call("systemctl", "start", "pidtrail")
    status, said = machine.show("ExecMainStatus"), machine.call("tail", "-n1", "/run/log")
    machine.call("sh", "-c", f"systemctl stop pidtrail; cp /run/good {settings}")

    assert status == "1"
    assert said == f"pidtrail: {settings}: [histery]: there is no such setting"
