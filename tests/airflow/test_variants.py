"""
Tasks that are not run by a forking LocalExecutor: each way on a real Airflow, traced.

A way is a stage of its own (`tests.airflow.ways`) or one command as a person
types it. All ways of a version are played at the same time, when its first
test asks for one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec
import pytest

from demo import ROOT
from demo.airflow3 import Airflow3, migrated_template
from demo.airflow3 import database_url as sqlite_url
from demo.airflow_host import free_ports
from demo.environment import InstallError, Release, install
from demo.postgres import database_url as postgres_url
from demo.processes import Ledger, StageError
from demo.witness import Note, read_notes
from pidtrail.verdict.model import ProcessReport, Verdict
from tests.airflow.examples import assert_shown, of_stage
from tests.airflow.tracing import PIDTRAIL, explain, trace
from tests.airflow.ways import DAGS, SUDO, Sequential2

TWO, THREE = "2.11.2", "3.3.2"
BOTH = [TWO, THREE]
STAGES = {TWO: ("users", "interpreter", "sequential"), THREE: ("users", "standalone")}
# By hand: the words behind `airflow`. An executor of 3.x wants an api-server beside it.
COMMANDS = {
    "tasks test": ("tasks", "test", "way_plain", "t"),
    "dags test": ("dags", "test", "way_retry"),
    "dags test by executor": ("dags", "test", "way_retry", "--use-executor"),
}
BY_HAND = {TWO: tuple(COMMANDS), THREE: ("tasks test", "dags test")}
SUDOERS = ROOT / "tests/airflow/own_sudoers.sh"
STAGE_TIMEOUT_S = 240
# A ledger's file is named after its process, and the commands are played in threads of this one.
ONE_LEDGER = Lock()
FAILURES = (InstallError, StageError, OSError, subprocess.SubprocessError, msgspec.MsgspecError)

# How often sudo forks on its way to the user code, by what sudoers says of the user.
# 2.x starts it in a session of its own, which has no terminal: there is no pty to allocate.
FORKS = {
    TWO: {"sudo_daemon": 1, "sudo_nobody": 1, "sudo_games": 0},
    THREE: {"sudo_daemon": 2, "sudo_nobody": 1, "sudo_games": 0},
}

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_airflow,
    pytest.mark.needs_postgres,
    pytest.mark.timeout(900),
]


class Played(NamedTuple):
    """One way of one version: what the tasks wrote of themselves, and what pidtrail says."""

    recording: Path
    verdicts: list[Verdict]
    notes: list[Note]

    def of(self, case: str) -> list[Verdict]:
        """Verdicts of one case, by map index and try."""
        mine = [verdict for verdict in self.verdicts if verdict.task.dag_id == f"way_{case}"]
        return sorted(mine, key=lambda one: (one.task.map_index or 0, one.task.try_number or 0))

    def one(self, case: str) -> Verdict:
        """Return the only verdict of a case."""
        (verdict,) = self.of(case)
        return verdict

    def codes(self, case: str) -> list[str]:
        """Verdict codes of one case, by map index and try."""
        return [verdict.code for verdict in self.of(case)]

    def noted(self, case: str) -> set[tuple[int, int]]:
        """Pid and start time of each process that ran user code of a case, in its own words."""
        return {note.identity for note in self.notes if note.dag_id == f"way_{case}"}


def runners(verdict: Verdict, role: str = "runner") -> list[ProcessReport]:
    """Return the processes of an attempt that have a role, oldest first."""
    return [process for process in verdict.processes if process.role == role]


def identities(verdicts: list[Verdict]) -> set[tuple[int | None, int | None]]:
    """Return pid and start time of all runners."""
    return {(one.pid, one.start_ticks) for verdict in verdicts for one in runners(verdict)}


def chain(verdict: Verdict) -> list[str | None]:
    """Return the roles from the only runner upwards."""
    (runner,) = runners(verdict)
    return [who.role for who in runner.chain]


def recorded(verdict: Verdict) -> int | None:
    """Return the pid that Airflow recorded last."""
    return [seen.pid for seen in verdict.recorded if seen.pid is not None][-1]


def play_stage(way: str, version: str, folder: Path) -> Path:
    """Trace a stage of `tests.airflow.ways`; return its recording."""
    home = folder / "home"
    driver = [
        *(sys.executable, "-m", "tests.airflow.ways"),
        *(way, version, str(home), str(folder / "result.json")),
    ]
    if way in {"users", "interpreter"}:
        driver = [str(SUDOERS), str(ROOT), *driver]
    if version == TWO and way != "sequential":
        (port,) = free_ports(1)
        database = postgres_url(port)
        driver.append(str(port))
    else:
        database = sqlite_url(home)
    return trace(folder, driver, "--airflow-db", database, timeout_s=STAGE_TIMEOUT_S)


def play_command(name: str, release: Release, folder: Path) -> Path:
    """Trace one `airflow` command; pidtrail finds the database by itself."""
    home = folder / "home"
    home.mkdir()
    kind = Sequential2 if release.version == TWO else Airflow3
    with ONE_LEDGER:
        ledger = Ledger(home)
        host = kind(release, ledger, DAGS)
        host.prepare_home()
        ledger.stop_all()
    argv = [str(release.python), str(release.command), *COMMANDS[name]]
    environ = host.environ()
    # 2.x starts its supervisor as `airflow`, from PATH.
    environ["PATH"] = f"{release.command.parent}{os.pathsep}{environ['PATH']}"
    return trace(folder, argv, timeout_s=STAGE_TIMEOUT_S, environ=environ)


def play(way: str, version: str, base: Path) -> Played | str:
    """Play one way; return the reason if it does not work."""
    folder = base / f"{way.replace(' ', '-')}-{version}"
    folder.mkdir(mode=0o755)
    try:
        if way in COMMANDS:
            recording = play_command(way, install(version), folder)
        else:
            recording = play_stage(way, version, folder)
        return Played(recording, explain(recording), read_notes(folder / "home/notes"))
    except FAILURES as error:
        return f"{way} on {version}: {type(error).__name__}: {error}"


@functools.cache
def played_once(version: str, base: Path) -> dict[str, Played | str]:
    """Play all ways of a version side by side."""
    ways = [*STAGES[version], *BY_HAND[version]]
    try:
        migrated_template(install(version))
    except FAILURES as error:
        return dict.fromkeys(ways, f"{type(error).__name__}: {error}")
    with ThreadPoolExecutor(len(ways)) as pool:
        return dict(zip(ways, pool.map(lambda way: play(way, version, base), ways), strict=True))


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that unprivileged users may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="pidtrail-ways-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@dataclass(frozen=True)
class Ways:
    """All that was played on one version; a reason stands where it could not be."""

    version: str
    outcomes: dict[str, Played | str]

    def __getitem__(self, way: str) -> Played:
        """Return what was played; fails the test if it could not be."""
        outcome = self.outcomes[way]
        if isinstance(outcome, str):
            pytest.fail(outcome, pytrace=False)
        return outcome


@pytest.fixture(params=BOTH)
def ways(request: pytest.FixtureRequest, base: Path) -> Ways:
    """Each version."""
    return Ways(request.param, played_once(request.param, base))


@pytest.fixture
def ways2(base: Path) -> Ways:
    """Airflow 2.x alone: what 3.x has no more."""
    return Ways(TWO, played_once(TWO, base))


@pytest.fixture
def ways3(base: Path) -> Ways:
    """Airflow 3.x alone."""
    return Ways(THREE, played_once(THREE, base))


def test_no_way_changes_a_pid(ways: Ways) -> None:
    """A process keeps its number, whichever way it was started."""
    verdicts = [verdict for way in ways.outcomes for verdict in ways[way].verdicts]

    assert verdicts
    assert not any(verdict.pid_changed_in_kernel for verdict in verdicts)


def test_nothing_is_left_unexplained(ways: Ways) -> None:
    """No way ends in `undetermined`, or in a conflict that is none."""
    verdicts = [verdict for way in ways.outcomes for verdict in ways[way].verdicts]

    assert {verdict.outcome for verdict in verdicts} == {"match", "explained"}


# --- below sudo ---


@pytest.mark.parametrize("case", SUDO)
def test_runner_below_sudo_is_the_process_that_ran_user_code(ways: Ways, case: str) -> None:
    """However often sudo forks, the process that the task wrote down is the runner."""
    users = ways["users"]

    assert identities(users.of(case)) == users.noted(case)
    assert len(users.noted(case)) == 1


@pytest.mark.parametrize("case", SUDO)
def test_levels_of_sudo_are_counted(ways: Ways, case: str) -> None:
    """Each process of sudo between the supervisor and the user code is named as sudo."""
    verdict = ways["users"].one(case)
    forks = FORKS[ways.version][case]

    assert chain(verdict)[: forks + 2] == ["runner", *["sudo"] * forks, "supervisor"]
    assert len(runners(verdict, "sudo")) == forks


@pytest.mark.parametrize("case", SUDO)
def test_recorded_level_is_the_one_of_the_version(ways: Ways, case: str) -> None:
    """2.x records the process below sudo, 3.x the one that became sudo."""
    verdict = ways["users"].one(case)
    levels = [*runners(verdict, "sudo"), *runners(verdict)]

    assert recorded(verdict) == levels[-1 if ways.version == TWO else 0].pid


@pytest.mark.parametrize("case", SUDO)
def test_alarm_below_sudo_is_false_where_2_does_not_find_sudo(ways: Ways, case: str) -> None:
    """2.x takes the recorded process's parent for it: wrong unless sudo forked exactly once."""
    alarm = ways.version == TWO and FORKS[TWO][case] != 1
    log = next(home_of(ways["users"]).rglob(f"dag_id=way_{case}/**/attempt=1.log")).read_text()

    assert ("Recorded pid" in log) is alarm
    assert ways["users"].codes(case) == ["impersonation" if alarm else "match"]


def test_alarm_in_the_log_leads_to_its_run(ways2: Ways) -> None:
    """The line that 2.x wrote below a sudo that forked nothing is read, both numbers named."""
    users = ways2["users"]
    log = next(home_of(users).rglob("dag_id=way_sudo_games/**/attempt=1.log"))
    line = next(line for line in log.read_text().splitlines() if "Recorded pid" in line)

    told = json.loads(asked("explain", users.recording, "--message", line, "--json"))

    (message,) = told["messages"]
    (supervisor,), (runner,) = (number["seen"] for number in message["pids"])
    assert supervisor.startswith("the supervisor of way_sudo_games.t")
    assert runner.startswith("the runner of way_sudo_games.t")
    assert "false alarm" in message["comparison"]
    assert [one["code"] for one in told["report"]["verdicts"]] == ["impersonation"]


def test_sudo_and_what_ran_below_are_both_told(ways3: Ways) -> None:
    """Who compares `os.getpid()` of a task with the record of 3.x reads that both are right."""
    verdict = ways3["users"].one("sudo_nobody")
    (runner,) = runners(verdict)

    assert f"Recorded PID {recorded(verdict)} is sudo" in verdict.summary
    assert f"in process {runner.pid}" in verdict.summary


# --- executors of 2.x, and their settings ---


def test_worker_per_task_is_named_as_worker(ways2: Ways) -> None:
    """With parallelism=0 each task has a worker of its own below the scheduler."""
    users = ways2["users"]
    cases = ("plain", *SUDO)
    workers = set()
    for case in cases:
        (runner,) = runners(users.one(case))
        workers |= {who.pid for who in runner.chain if who.role == "executor_worker"}

    assert len(workers) == len(cases)
    assert chain(users.one("plain"))[:4] == ["runner", "supervisor", "executor_worker", "scheduler"]
    assert users.codes("plain") == ["match"]


@pytest.mark.parametrize("case", ["plain", "mapped"])
def test_runner_below_a_new_interpreter_is_recorded(ways2: Ways, case: str) -> None:
    """The supervisor is a program of its own; its runner is a fork, and the only one."""
    new = ways2["interpreter"]

    assert identities(new.of(case)) == new.noted(case)
    assert set(new.codes(case)) == {"match"}


def test_supervisor_of_a_new_interpreter_is_known_by_its_arguments(ways2: Ways) -> None:
    """`airflow tasks run --local` below a worker supervises."""
    verdict = ways2["interpreter"].one("plain")
    (supervisor,) = runners(verdict, "supervisor")

    assert chain(verdict)[:4] == ["runner", "supervisor", "executor_worker", "scheduler"]
    assert "--local" in (argv_of(ways2["interpreter"], supervisor) or [])


@pytest.mark.parametrize(
    ("case", "code"), [("own_user", "impersonation"), ("sudo_nobody", "match")]
)
def test_another_user_below_a_new_interpreter(ways2: Ways, case: str, code: str) -> None:
    """The supervisor's kind does not matter: the alarm is false where sudo did not fork."""
    new = ways2["interpreter"]
    log = next(home_of(new).rglob(f"dag_id=way_{case}/**/attempt=1.log")).read_text()

    assert new.codes(case) == [code]
    assert ("Recorded pid" in log) is (code == "impersonation")
    assert identities(new.of(case)) == new.noted(case)


def test_setting_for_new_interpreters_has_no_effect_on_3(ways3: Ways) -> None:
    """3.3.2 forks its runners on Linux, whatever execute_tasks_new_python_interpreter says."""
    users = ways3["users"]
    verdict = users.one("plain")

    assert chain(verdict)[:3] == ["runner", "supervisor", "scheduler"]
    assert argv_of(users, runners(verdict)[0]) is None
    assert (verdict.code, identities([verdict])) == ("match", users.noted("plain"))


def test_sequential_executor_has_no_worker(ways2: Ways) -> None:
    """The scheduler executes the supervisor itself, and waits."""
    sequential = ways2["sequential"]
    verdict = sequential.one("plain")

    assert chain(verdict)[:3] == ["runner", "supervisor", "scheduler"]
    assert (verdict.code, identities([verdict])) == ("match", sequential.noted("plain"))


def test_retry_of_the_sequential_executor_is_a_retry(ways2: Ways) -> None:
    """Two tries are two processes."""
    sequential = ways2["sequential"]

    assert sequential.codes("retry") == ["retry", "match"]
    assert identities(sequential.of("retry")) == sequential.noted("retry")


# --- by hand ---


def test_tasks_run_in_a_shell_is_its_own_supervisor(ways2: Ways) -> None:
    """`airflow tasks run --local` forks the runner; nothing scheduled it, so it is attempt 0."""
    sequential = ways2["sequential"]
    verdict = sequential.one("shell")

    assert chain(verdict)[:3] == ["runner", "supervisor", "other"]
    assert verdict.task.try_number == 0
    assert (verdict.code, identities([verdict])) == ("match", sequential.noted("shell"))


def test_tasks_test_runs_user_code_itself(ways: Ways) -> None:
    """The command is the runner, below who called it; 2.x keeps no row of it."""
    test = ways["tasks test"]
    verdict = test.one("plain")

    assert verdict.code == ("unrecorded-test" if ways.version == TWO else "match")
    assert identities([verdict]) == test.noted("plain")
    assert "`airflow tasks test`" in verdict.summary
    assert not verdict.unknowns


@pytest.mark.parametrize("code", of_stage("tasks-test"))
def test_example_has_the_verdict_that_it_stands_for(ways: Ways, code: str) -> None:
    """What the page of verdicts shows of this way is what is played here."""
    assert_shown(code, ways["tasks test"].recording.parent)


def test_dags_test_runs_both_tries_itself(ways: Ways) -> None:
    """Two tries in one process: each is right on record, and none superseded the other."""
    test = ways["dags test"]

    assert [verdict.task.try_number for verdict in test.of("retry")] == [1, 2]
    assert test.codes("retry") == ["match", "match"]
    assert identities(test.of("retry")) == test.noted("retry")
    assert len(test.noted("retry")) == 1


def test_dags_test_by_an_executor_has_runners_below(ways2: Ways) -> None:
    """With --use-executor the command is no runner, and each try is a process of its own."""
    test = ways2["dags test by executor"]

    assert test.codes("retry") == ["retry", "match"]
    assert identities(test.of("retry")) == test.noted("retry")
    assert len(test.noted("retry")) == 2


# --- all in one ---


def test_standalone_is_told_apart_into_its_parts(ways3: Ways) -> None:
    """Scheduler, api-server, dag-processor and triggerer are found below the one command."""
    processes = tree_of(ways3["standalone"])
    parent = next(one for one in processes if one["argv"] and one["argv"][-1] == "standalone")
    below = [one for one in processes if (one["birth_parent"] or {}).get("pid") == parent["pid"]]
    parts = {one["role"] for one in below}

    assert {"scheduler", "api_server", "dag_processor", "triggerer"} <= parts


def test_tasks_of_standalone_are_those_of_its_scheduler(ways3: Ways) -> None:
    """The chain goes on from the scheduler to the one command."""
    standalone = ways3["standalone"]
    verdict = standalone.one("plain")

    assert chain(verdict)[:4] == ["runner", "supervisor", "scheduler", "other"]
    assert (verdict.code, identities([verdict])) == ("match", standalone.noted("plain"))
    assert standalone.codes("retry") == ["retry", "match"]


def home_of(played: Played) -> Path:
    """Return the home of the Airflow that was traced."""
    return played.recording.with_name("home")


def asked(command: str, recording: Path, *options: str) -> bytes:
    """Return what a command of pidtrail says of a recording."""
    argv = [str(PIDTRAIL), command, str(recording), *options]
    return subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout


def tree_of(played: Played) -> list[dict]:
    """Return all processes that were traced."""
    return json.loads(asked("tree", played.recording, "--json"))["processes"]


def argv_of(played: Played, process: ProcessReport) -> list[str] | None:
    """Return the arguments of the last program that a process executed, None if it did not."""
    (node,) = (
        one
        for one in tree_of(played)
        if (one["pid"], one["start_ticks"]) == (process.pid, process.start_ticks)
    )
    return node["images"][-1]["argv"] if node["images"] else None
