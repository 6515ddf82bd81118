"""
Plays one of the less usual ways of running tasks: what `pidtrail trace` watches.

    python -m tests.airflow.ways WAY VERSION HOME RESULT [PORT]

`users`: LocalExecutor, tasks of other users below sudo; 2.x makes a worker for
each task (parallelism=0), 3.x has execute_tasks_new_python_interpreter set.
`interpreter`: 2.x, LocalExecutor, a new interpreter for each task; pods beside it.
`sequential`: 2.x, SequentialExecutor, and `tasks run --local` from a shell.
`standalone`: 3.x, all parts below one command.

PORT is PostgreSQL's, for 2.x with LocalExecutor. RESULT (JSON) tells how each
run ended, and which pods there were. Watches nothing itself. Status 0 when all was
played and nothing was left running, else 1 and one line.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
from pathlib import Path

from demo.airflow2 import Airflow2
from demo.airflow3 import Airflow3, database_url, migrated_template
from demo.airflow_host import AirflowHost, free_ports
from demo.environment import InstallError, Release, install, say
from demo.processes import Ledger, Manner, Piece, StageError, stop_on_signals, wait_until
from tests.airflow.node import LOCAL_DATABASE
from tests.contract.kubelet import directory

DAGS = Path(__file__).with_name("dags_of_ways")
TERMINAL = Path(__file__).with_name("on_a_terminal.py")
RUN_ID = "test"
SUDO = ("sudo_daemon", "sudo_nobody", "sudo_games")
# sudo starts nothing for these: see the rules in `sudoers`.
REFUSED = {
    "2": ("no_rule", "password", "no_user", "no_command"),
    "3": ("no_rule", "password", "no_user"),
}
# 2.x may miss the end of a sudo that ends soon; then its supervisor goes on for ever.
ENDLESS = {("users", "2", case) for case in ("no_rule", "password", "no_command")}
NOT_STARTED = "Heartbeat failed with Exception: Process is not started yet"
# Whom `sudoers` speaks of: Airflow is not root, who may do all without a password.
AIRFLOW_USER = "backup"
PODS = ("pod", "pod_user", "pod_network")
CASES = {
    "users": ("plain", *SUDO),
    "interpreter": ("plain", "mapped", "own_user", "sudo_nobody", *PODS),
    "sequential": ("plain", "retry"),
    "standalone": ("plain", "retry"),
}
# What another user must be able to write: the log of his task, from within the task in 2.x.
OPEN_LOGS = {
    "LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o777",
    "LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o666",
}


def dag_id(case: str) -> str:
    """Name of the DAG of a case."""
    return f"way_{case}"


class Users2(Airflow2):
    """2.x with a worker per task, and a terminal for who wants one."""

    def version_settings(self) -> dict[str, str]:
        """LocalExecutor makes a process for each task."""
        return super().version_settings() | OPEN_LOGS | {"CORE__PARALLELISM": "0"}

    def spawn(self, name: str, *command: str) -> Piece:
        """Give the scheduler a terminal, as one has that is started by hand."""
        return spawn_on_terminal(self._ledger, self._release, self.environ(), name, *command)


class Users3(Airflow3):
    """3.x told to use new interpreters, and a terminal for who wants one."""

    def version_settings(self) -> dict[str, str]:
        """What 2.x knows and 3.3.2 still reads without a complaint."""
        own = {"CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "True"}
        return super().version_settings() | OPEN_LOGS | own

    def spawn(self, name: str, *command: str) -> Piece:
        """Give the scheduler a terminal, as one has that is started by hand."""
        return spawn_on_terminal(self._ledger, self._release, self.environ(), name, *command)


class Interpreter2(Airflow2):
    """2.x that starts each supervisor as a program of its own, below a worker or in a pod."""

    cgroups = Path()

    def version_settings(self) -> dict[str, str]:
        """A new interpreter for each task, and a second executor."""
        own = {
            "CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "True",
            "CORE__EXECUTOR": "LocalExecutor,pods:tests.airflow.pod_executor.PodExecutor",
        }
        return super().version_settings() | OPEN_LOGS | own

    def start(self) -> None:
        """Start everything, and the node on which pods run."""
        (self.home / "nodes/node").mkdir(parents=True)
        super().start()
        words = (str(self.home / "nodes/node"), str(self.cgroups), str(self._release.python))
        argv = [sys.executable, "-m", "tests.airflow.node", *words]
        self._ledger.spawn("node", argv, self.environ() | {LOCAL_DATABASE: self.local_database})


class Sequential2(Airflow2):
    """2.x as it is unpacked: SequentialExecutor on SQLite."""

    @property
    def database(self) -> str:
        """The SQLite file in the stage's home."""
        return database_url(self.home)

    def version_settings(self) -> dict[str, str]:
        """The executor that a new installation has."""
        return super().version_settings() | {"CORE__EXECUTOR": "SequentialExecutor"}

    def prepare_home(self) -> None:
        """Make folders, and a copy of a migrated database."""
        super().prepare_home()
        # As of 3.x: of two parts that start at once one could read what the other has half written.
        (self.home / "airflow.cfg").touch()
        shutil.copyfile(migrated_template(self._release), self.home / "airflow.db")

    def start(self) -> None:
        """Start a scheduler; no server is needed."""
        self.prepare_home()
        self.start_scheduler()
        self.start_console()

    def run_in_shell(self, case: str) -> None:
        """Run a task as one does who looks for a fault: `airflow tasks run --local`."""
        self.trigger(dag_id(case), RUN_ID)
        # With a command behind it, or the shell would become this one.
        command = f"airflow tasks run {dag_id(case)} t {RUN_ID} --local; true"
        shell = self._ledger.spawn("shell", ["/bin/sh", "-c", command], self.environ())
        self._ledger.forget(shell)
        wait_until(
            lambda: shell.popen.poll() is not None, within_s=90, what="the end of `tasks run`"
        )


class Standalone3(Airflow3):
    """3.x as its documentation starts it first: all parts below one command."""

    def __init__(self, release: Release, ledger: Ledger) -> None:
        super().__init__(release, ledger, DAGS, parallelism=2)
        self._log_ports = free_ports(2)

    def version_settings(self) -> dict[str, str]:
        """Ports of our own for the log servers too, which it always starts."""
        names = ("LOGGING__WORKER_LOG_SERVER_PORT", "LOGGING__TRIGGER_LOG_SERVER_PORT")
        own = dict(zip(names, map(str, self._log_ports), strict=True))
        return super().version_settings() | own

    def start(self) -> None:
        """Start the one command; it migrates nothing in a copy of a migrated database."""
        self.prepare_home()
        self.spawn("standalone", "standalone")


def spawn_on_terminal(
    ledger: Ledger, release: Release, environ: dict[str, str], name: str, *command: str
) -> Piece:
    """Start one `airflow` command; the scheduler with a terminal, and not as root."""
    argv = [str(release.python), str(release.command), *command]
    if command[0] == "scheduler":
        argv = [str(release.python), str(TERMINAL), *argv]
    if command[0] != "scheduler":
        return ledger.spawn(name, argv, environ)
    account = pwd.getpwnam(AIRFLOW_USER)
    own = {"USER": AIRFLOW_USER, "LOGNAME": AIRFLOW_USER, "HOME": account.pw_dir}
    return ledger.spawn(name, argv, environ | own, Manner(user=AIRFLOW_USER))


def host_of(
    way: str, release: Release, ledger: Ledger, port: int | None, cgroups: Path
) -> AirflowHost:
    """Return the Airflow that a way needs; `cgroups` is where pods may have theirs."""
    if way == "users":
        if release.version.startswith("2."):
            return Users2(release, ledger, DAGS, port=port)
        return Users3(release, ledger, DAGS, parallelism=4)
    if way == "interpreter":
        host = Interpreter2(release, ledger, DAGS, port=port)
        host.cgroups = cgroups
        return host
    if way == "sequential":
        return Sequential2(release, ledger, DAGS)
    return Standalone3(release, ledger)


def wait_for_end(host: AirflowHost, case: str) -> str:
    """Wait for the end of a case, or until its supervisor says that it waits in vain."""

    def state() -> str | None:
        logs = host.home.rglob(f"dag_id={dag_id(case)}/**/attempt=1.log")
        if any(NOT_STARTED in log.read_text(errors="replace") for log in logs):
            return "running"
        found = host.run_state(dag_id(case), RUN_ID)
        return found if found in {"success", "failed"} else None

    return wait_until(state, within_s=120, what=f"the end of {case}") or ""


def play(host: AirflowHost, way: str, major: str) -> dict[str, str]:
    """Run the cases of a way, as many at once as can be; return how each ended."""
    host.start()
    host.wait_for_dags({dag_id(case) for case in (*CASES[way], "shell")})
    say("Airflow is ready")
    cases = (*CASES[way], *(REFUSED[major] if way == "users" else ()))
    for case in cases:
        host.trigger(dag_id(case), RUN_ID)
    states = {
        case: wait_for_end(host, case)
        if (way, major, case) in ENDLESS
        else host.wait_for_end(dag_id(case), RUN_ID, within_s=120)
        for case in cases
    }
    if isinstance(host, Sequential2):
        host.run_in_shell("shell")
    say(f"ended: {states}")
    return states


def main(way: str, version: str, home: Path, result: Path, port: int | None) -> int:
    """Play, stop everything, write the result; status as the module says."""
    stop_on_signals()
    try:
        release = install(version)
        # Tasks of other users write here too.
        os.umask(0)
        # Supervisors and other users' tasks are started as `airflow`, from PATH.
        os.environ["PATH"] = f"{release.command.parent}{os.pathsep}{os.environ['PATH']}"
        home.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(home)
        with directory(2) as cgroups:
            try:
                host = host_of(way, release, ledger, port, cgroups)
                states = play(host, way, version[0])
            finally:
                ledger.stop_all()
    except (StageError, InstallError) as error:
        say(f"Airflow {version}: {error}")
        return 1
    pods = [json.loads(path.read_text()) for path in home.glob("nodes/*/*.pod")]
    result.write_text(json.dumps({"states": states, "pods": pods}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(
        main(
            sys.argv[1],
            sys.argv[2],
            Path(sys.argv[3]).resolve(),
            Path(sys.argv[4]).resolve(),
            int(sys.argv[5]) if len(sys.argv) > 5 else None,
        )
    )
