"""A real Airflow 2.11.2 on MariaDB that names its logs in its own way: read like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

pytest.importorskip("pymysql")

from demo import ROOT
from demo.airflow2 import Airflow2
from demo.environment import install
from demo.processes import Ledger, wait_until
from demo.witness import Note
from pidtrail.airflow.lognames import LogNames
from pidtrail.events import AirflowFact, Observed
from pidtrail.sources.replay import Replay
from pidtrail.verdict.model import Report, Verdict
from tests.database.mariadb import PASSWORD, MariaDb

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.needs_mariadb,
    pytest.mark.timeout(900),
]

PIDTRAIL = Path(sys.executable).with_name("pidtrail")
DAGS = Path(__file__).with_name("dags")
CASES = ("bash", "retry", "mapped")
TEMPLATE = (
    "by-dag/{{ ti.dag_id }}/{{ ti.run_id }}/{{ ti.task_id }}"
    "{% if ti.map_index >= 0 %}/{{ ti.map_index }}{% endif %}/{{ try_number }}.log"
)


class OnMariaDb(Airflow2):
    """The stage of 2.x, with another server below it."""

    settings: dict[str, str]

    def environ(self) -> dict[str, str]:
        """Add what makes Airflow use MariaDB, and name its logs so."""
        environ = super().environ()
        path = f"{environ['PYTHONPATH']}:{self.settings['PYTHONPATH']}"
        further = {"AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE": TEMPLATE, "PYTHONPATH": path}
        return environ | self.settings | further

    def start(self) -> None:
        """Migrate the database and start the scheduler; the server runs."""
        self.prepare_home()
        self.migrate()
        self.start_scheduler()
        self.start_console()

    def close(self) -> None:
        """Let go of the console, which has ended."""
        if self._console is not None:
            for pipe in (self._console.popen.stdin, self._console.popen.stdout):
                assert pipe is not None  # spawned with pipes
                pipe.close()


class Traced(NamedTuple):
    """What was recorded and judged, and what the tasks wrote down."""

    recording: Path
    verdicts: list[Verdict]
    notes: list[Note]
    log: str

    def of(self, case: str) -> list[Verdict]:
        """Verdicts of a case, by map index and try."""
        mine = [verdict for verdict in self.verdicts if verdict.task.dag_id == f"case_{case}"]
        return sorted(mine, key=lambda one: (one.task.map_index or 0, one.task.try_number or 0))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("mariadb")
    home, log, recording = folder / "home", folder / "trace.log", folder / "session.db"
    home.mkdir()
    release, server, ledger = install("2.11.2"), MariaDb(), Ledger(home)
    host = OnMariaDb(release, ledger, DAGS)
    try:
        server.start()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE airflow")
        host.settings = server.airflow_settings("airflow", home)
        host.start()
        host.wait_for_dags({f"case_{case}" for case in CASES})
        with log.open("wb") as output:
            trace = subprocess.Popen(
                [
                    *(str(PIDTRAIL), "trace", "--pid", str(host.scheduler.pid)),
                    *("--format", "none", "-o", str(recording)),
                ],
                cwd=ROOT,
                env=os.environ
                | {
                    "AIRFLOW_HOME": str(home),
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url("airflow"),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                wait_until(lambda: b"attached" in log.read_bytes(), within_s=30, what="the trace")
                for case in CASES:
                    host.trigger(f"case_{case}", "on-mariadb")
                for case in CASES:
                    host.wait_for_end(f"case_{case}", "on-mariadb", within_s=120)
            finally:
                trace.send_signal(signal.SIGINT)
                trace.wait(30)
        explained = subprocess.run(
            [str(PIDTRAIL), "explain", str(recording), "--json"],
            capture_output=True,
            check=True,
            timeout=60,
        )
        verdicts = msgspec.json.decode(explained.stdout, type=Report).verdicts
        yield Traced(recording, verdicts, host.notes(), log.read_text())
    finally:
        ledger.stop_all()
        host.close()
        server.remove()


def test_every_recorded_pid_is_read_and_judged(traced: Traced) -> None:
    assert [verdict.code for verdict in traced.of("bash")] == ["match"]
    assert [verdict.code for verdict in traced.of("retry")] == ["retry", "match"]
    mapped = traced.of("mapped")
    assert len(mapped) > 1
    assert {verdict.code for verdict in mapped} == {"match"}
    for case in CASES:
        noted = {note.pid for note in traced.notes if note.dag_id == f"case_{case}"}
        assert {seen.pid for one in traced.of(case) for seen in one.recorded if seen.pid} == noted


def test_the_logs_are_read_by_the_template_that_the_database_has(traced: Traced) -> None:
    """The recording explains itself: template, folder, and the files that were held open."""
    names, paths = LogNames(), []
    for event in Replay(str(traced.recording)).events():
        if isinstance(event, AirflowFact):
            names.learn(event)
        elif isinstance(event, Observed) and event.log_path is not None:
            paths.append(event.log_path)

    assert not names.problems
    assert paths
    read = {path: names.task(path) for path in paths}
    assert all("/by-dag/" in path for path in read)
    told = {(t.dag_id, t.map_index, t.try_number) for t in read.values() if t is not None}
    assert len(told) == len(set(paths))
    assert {("case_bash", -1, 1), ("case_retry", -1, 2), ("case_mapped", 1, 1)} <= told


def test_no_password_is_written(traced: Traced) -> None:
    assert PASSWORD not in traced.log
    assert PASSWORD.encode() not in traced.recording.read_bytes()
