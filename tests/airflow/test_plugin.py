"""
What real Airflows tell through the plugin, and that they run on where nobody listens.

The two newest always; the older ones with `--every-airflow` (`make test-matrix`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import structs

from demo import ROOT
from demo.airflow3 import migrated_template
from demo.environment import airflow_environ, provide
from demo.witness import Note, read_notes
from pidtrail.events import Event, Exec, Header, Observed, TaskRef, TaskReported, Title
from pidtrail.sources.replay import Replay
from pidtrail.verdict.engine import judge_stream
from tests.airflow.plugin_driver import HEARD, TROUBLES
from tests.airflow.releases import NEWEST, OLDER

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

PIDTRAIL = Path(sys.executable).with_name("pidtrail")
SESSION_TIMEOUT_S = 600
AT_A_TIME = 2
UNDECIDED = {"2.7.3": None}
"""What a failed task says where Airflow decides on a retry only after it was told."""


class Played(NamedTuple):
    """A traced session in which no database was given."""

    version: str
    header: Header
    events: list[Event]
    notes: list[Note]
    states: dict[str, dict[str, str]]
    log: str

    @property
    def told(self) -> list[TaskReported]:
        """What came through the plugin."""
        return [e for e in self.events if isinstance(e, TaskReported) and e.via == "plugin"]

    def of(self, case: str) -> list[TaskReported]:
        """What the processes of a case told, in order."""
        return [e for e in self.told if e.task is not None and e.task.dag_id == f"case_{case}"]


def installed(folder: Path) -> Path:
    """Install pidtrail's wheel, and nothing that it needs, into a folder; return the folder."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    return site


def play(version: str, folder: Path) -> Played:
    """Trace all that the driver plays on one Airflow, with no word of a database."""
    release = (NEWEST | OLDER)[version]
    provide(release)
    home, recording, log = folder / "home", folder / "session.db", folder / "trace.log"
    (home / "plugins").mkdir(parents=True)
    if version.startswith("2."):
        site = home  # nothing to import there
        plugin = subprocess.run([PIDTRAIL, "airflow-plugin"], check=True, capture_output=True)
        (home / "plugins" / "pidtrail_plugin.py").write_bytes(plugin.stdout)
    else:
        migrated_template(release)
        site = installed(folder)
    with log.open("wb") as output:
        traced = subprocess.run(
            [
                *(PIDTRAIL, "trace", "--format", "none", "-o", recording),
                *("--airflow-plugin", folder / "claims.sock", "--"),
                *(sys.executable, "-m", "tests.airflow.plugin_driver", version, home, site),
            ],
            cwd=ROOT,
            env=airflow_environ(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=SESSION_TIMEOUT_S,
            check=False,
        )
    said = log.read_text(errors="replace")
    if traced.returncode:
        pytest.fail(f"trace: status {traced.returncode}\n{said}", pytrace=False)
    replay = Replay(str(recording))
    return Played(
        version,
        replay.header,
        list(replay.events()),
        read_notes(home / "notes"),
        json.loads((home / "states.json").read_bytes()),
        said,
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `played` the two newest releases, or all with `--every-airflow`."""
    if "played" in metafunc.fixturenames:
        metafunc.parametrize("played", versions(metafunc.config), indirect=True)


def versions(config: pytest.Config) -> list[str]:
    """Return the releases to play on."""
    return [*NEWEST, *(OLDER if config.getoption("--every-airflow") else ())]


@pytest.fixture(scope="module")
def sessions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Played]]]:
    """All releases, two of them at the same time."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            version: pool.submit(play, version, tmp_path_factory.mktemp(f"plugin-{version}"))
            for version in versions(request.config)
        }


@pytest.fixture
def played(request: pytest.FixtureRequest, sessions: dict[str, Future[Played]]) -> Played:
    """What was played on one release; waits for it."""
    return sessions[request.param].result()


def noted(notes: list[Note]) -> list[tuple[object, ...]]:
    """Return what tasks wrote down: which attempt, and which process ran it."""
    return sorted(
        (n.dag_id, n.task_id, n.run_id, n.map_index, n.try_number, n.ti_id or "", *n.identity)
        for n in notes
        if n.phase == "begin"
    )


def named(task: TaskRef) -> tuple[object, ...]:
    """Return an attempt by its names, to be sorted."""
    return (*structs.astuple(task)[:5], task.ti_id or "")


def told(events: list[TaskReported]) -> list[tuple[object, ...]]:
    """Return the same of what the plugin told."""
    return sorted((*named(e.task), e.pid, e.start_ticks) for e in events if e.task is not None)


def test_each_process_tells_what_it_runs(played: Played) -> None:
    """All five names, the UUID of 3.x, pid and start time: as the tasks wrote them down."""
    heard = [note for note in played.notes if note.run_id == HEARD]

    assert played.header.airflow_db is None
    assert len(heard) >= 1 + 4 + 2 + 3  # bash, mapped, tries, pokes
    assert told([e for e in played.told if e.state == "running"]) == noted(heard)


def test_each_end_is_told_by_who_ran_it(played: Played) -> None:
    """A retry is told from a failure, and of a sensor's pokes only the last one ends the task."""
    states = [event.state for event in played.of("retry")]
    failed = UNDECIDED.get(played.version, "up_for_retry")

    assert states == ["running", failed, "running", "success"]
    assert [e.state for e in played.of("reschedule")] == ["running"] * 3 + ["success"]
    assert sorted(e.state or "" for e in played.of("mapped")) == ["running"] * 4 + ["success"] * 4


def test_the_recorded_number_is_the_kernels_word(played: Played) -> None:
    """Nobody spoke for another process: not the api-server either, where a user set a state."""
    runners = {note.identity for note in played.notes}

    assert played.told
    assert {(e.recorded_pid, e.start_ticks) for e in played.told} <= runners
    assert "named another process" not in played.log


def mute(event: Event) -> Event | None:
    """Return an event without what else a process shows of its task, None if that is all of it."""
    if isinstance(event, Title):
        return None
    if isinstance(event, Exec):
        return structs.replace(event, argv=None)
    if isinstance(event, Observed):
        return structs.replace(event, argv=None, log_path=None, env=None)
    return event


def test_the_plugin_alone_identifies_every_attempt(played: Played) -> None:
    """With titles, logs and arguments struck from the record, the same processes are found."""
    events = [muted for event in played.events if (muted := mute(event)) is not None]
    verdicts = judge_stream(played.header, events, problems=[]).verdicts

    found = sorted(
        (*named(verdict.task), p.pid, p.start_ticks)
        for verdict in verdicts
        for p in verdict.processes
        if p.role == "runner" and p.identified_by == "plugin"
    )
    assert found == noted([note for note in played.notes if note.run_id == HEARD])


def test_a_retry_is_explained_without_any_row(played: Played) -> None:
    """In 3.x the first process exits with 0: that its attempt failed it told itself."""
    verdicts = judge_stream(played.header, played.events, problems=[]).verdicts
    (first,) = [
        verdict
        for verdict in verdicts
        if (verdict.task.dag_id, verdict.task.try_number) == ("case_retry", 1)
    ]

    assert (first.code, first.confidence, first.recorded) == ("retry", "proved", [])


@pytest.mark.parametrize("trouble", TROUBLES)
def test_tasks_succeed_where_nobody_listens(played: Played, trouble: str) -> None:
    """No socket, the socket of a dead agent, or one that is full: nothing comes of it."""
    assert played.states[trouble] == {"bash": "success"}
    assert not [e for e in played.told if e.task is not None and e.task.run_id == trouble]


def test_airflow_knows_no_trouble_with_the_plugin(played: Played) -> None:
    """All runs with it succeed, and the agent's socket was taken away at the end."""
    assert set(played.states[HEARD].values()) == {"success"}
    assert played.header.airflow_plugin is not None
    assert not Path(played.header.airflow_plugin).exists()
