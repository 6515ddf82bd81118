"""
One real Airflow of each major version, all cases played on it, traced once.

A session takes about a minute; every test reads its recording. Nothing is
skipped here: what cannot be installed or played fails the tests that need it.
"""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from demo.environment import InstallError, install, provide
from demo.processes import StageError
from demo.witness import Note, read_notes
from pidtrail.verdict.model import ProcessReport, Verdict
from tests.airflow.releases import NEWEST, OLDER
from tests.airflow.tracing import EXPLAIN_TIMEOUT_S, PIDTRAIL, explain, trace_driver
from tests.airflow.variants import THREE, TWO, Ways, played_once

SESSION_TIMEOUT_S = 600
# The files whose tests read `session` or `plain` of this module.
SESSION_READERS = {
    *("test_children", "test_claims", "test_examples", "test_indexed", "test_killers"),
    *("test_processes", "test_runners", "test_verdicts", "test_versions"),
}
# The files whose tests read `ways` of this module.
WAYS_READERS = {"test_variants", "test_sudo", "test_pods"}
FAILURES = (InstallError, StageError, OSError, subprocess.SubprocessError, msgspec.MsgspecError)


class Session(NamedTuple):
    """
    What was played on one Airflow, what the tasks wrote down, what pidtrail says.

    `kills` is, by case, `victim` and `killer` as (pid, start ticks).
    """

    version: str
    recording: Path
    verdicts: list[Verdict]
    notes: list[Note]
    kills: dict[str, dict[str, Any]]
    flips: int

    @property
    def is_2(self) -> bool:
        """Whether this is Airflow 2.x."""
        return self.version.startswith("2.")

    def of(self, case: str) -> list[Verdict]:
        """Verdicts of one case, by map index and try."""
        mine = [verdict for verdict in self.verdicts if verdict.task.dag_id == f"case_{case}"]
        return sorted(mine, key=lambda one: (one.task.map_index or 0, one.task.try_number or 0))

    def noted(self, case: str, phase: str | None = None) -> list[Note]:
        """Notes of one case, oldest first."""
        return [
            note
            for note in self.notes
            if note.dag_id == f"case_{case}" and phase in (None, note.phase)
        ]

    def runners(self, case: str) -> list[ProcessReport]:
        """Processes of one case that pidtrail says ran user code, oldest first."""
        found = [
            process
            for verdict in self.of(case)
            for process in verdict.processes
            if process.role == "runner"
        ]
        return sorted(found, key=lambda process: process.start_ticks or 0)

    def stream(self) -> list[dict[str, Any]]:
        """Return the recording as it is exported to JSON lines, the header first."""
        return exported(self.recording)

    def codes(self, case: str) -> list[str]:
        """Verdict codes of one case, by map index and try."""
        return [verdict.code for verdict in self.of(case)]


@functools.cache
def exported(recording: Path) -> list[dict[str, Any]]:
    """Return a recording as JSON lines."""
    done = subprocess.run(
        [PIDTRAIL, "export", recording, "--to", "jsonl"],
        capture_output=True,
        check=True,
        timeout=EXPLAIN_TIMEOUT_S,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def play(version: str, folder: Path) -> Session:
    """Trace all cases on one Airflow; explain the recording. Raises one of `FAILURES`."""
    recording = trace_driver(
        *("driver", install(version), folder, "--migrations"),
        timeout_s=SESSION_TIMEOUT_S,
        on_postgres=True,
    )
    played = json.loads((folder / "result.json").read_bytes())
    (child, _) = json.loads((folder / "home/children.json").read_bytes())["popen"]
    explain(recording, "--pid", str(child), left=folder / "verdicts-child.json")
    look = "late" if version.startswith("3.") else "unwritten"
    explain(folder / f"home/{look}.db", left=folder / f"verdicts-{look}.json")
    return Session(
        version=version,
        recording=recording,
        verdicts=explain(recording),
        notes=read_notes(folder / "home/notes"),
        kills=played["kills"],
        flips=played["flips"],
    )


def play_plain(version: str, folder: Path) -> Session:
    """Trace ordinary task runs on an older release; raises one of `FAILURES`."""
    provide(OLDER[version])
    recording = trace_driver("versions_driver", OLDER[version], folder, timeout_s=SESSION_TIMEOUT_S)
    return Session(version, recording, explain(recording), read_notes(folder / "home/notes"), {}, 0)


class TwoAtATime(LoadScopeScheduling):
    """
    Which tests the processes of `-n 2` take together: those that read one recording.

    xdist's own `loadgroup` writes the group into `item._nodeid`, which pytest 9.2
    does not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        """Return the group of a test: its file, or the version whose session it reads."""
        file, _, name = nodeid.partition("::")
        if Path(file).stem in WAYS_READERS:
            return "ways"
        if Path(file).stem not in SESSION_READERS:
            return file
        return next((version for version in (*NEWEST, *OLDER) if version in name), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoAtATime:
    """Let real Airflows be shared out between processes by what they are played for."""
    return TwoAtATime(config, log)


@functools.cache
def _played_once(version: str, base: Path) -> Session | str:
    folder = base / f"airflow-{version}"
    folder.mkdir()
    # A failure is remembered too: twenty tests must not wait for it twenty times.
    try:
        return play(version, folder) if version in NEWEST else play_plain(version, folder)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"


def _session(version: str, factory: pytest.TempPathFactory) -> Session:
    outcome = _played_once(version, factory.getbasetemp())
    if isinstance(outcome, str):
        pytest.fail(outcome, pytrace=False)
    return outcome


@pytest.fixture(params=list(NEWEST))
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Everything about one Airflow version; played when the first test asks for it."""
    return _session(request.param, tmp_path_factory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `plain` the two newest releases, or all with `--every-airflow`."""
    if "plain" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-airflow")
        metafunc.parametrize("plain", [*NEWEST, *(OLDER if every else ())], indirect=True)


@pytest.fixture
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """
    Ordinary task runs (`versions_driver.CASES`) on one release.

    Of the two newest they are part of `session`, so that no Airflow is started twice.
    """
    return _session(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A folder that unprivileged users may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="pidtrail-ways-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(params=[TWO, THREE])
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
