"""What real Airflows say over their REST APIs; of 3.x it is enough for a verdict."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from demo import ROOT
from demo.airflow3 import Airflow3
from demo.airflow_host import free_ports
from demo.environment import airflow_environ, install
from demo.processes import Ledger, wait_until
from demo.witness import FOLDER_VARIABLE, read_notes
from pidtrail.airflow.credentials import Credentials
from pidtrail.airflow.lognames import LogNames
from pidtrail.airflow.rest import Rest
from pidtrail.errors import ApiError
from pidtrail.events import AirflowFact, Event, Observed, TaskReported
from pidtrail.sources.replay import Replay
from pidtrail.verdict.model import Report, Verdict
from tests.airflow.recorder import recorded

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]

PIDTRAIL = Path(sys.executable).with_name("pidtrail")
DAGS = Path(__file__).with_name("dags")
CASES = ("bash", "retry", "reschedule", "deferral")
TEMPLATE = (
    "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ti.run_id }}"
    "{% if ti.map_index >= 0 %}/{{ ti.map_index }}{% endif %}/try-{{ ti.try_number }}.log"
)
RUN_ID = "rest+1"  # "+" must be quoted in a path


class Named(Airflow3):
    """The stage of 3.x, that names its logs in a way of its own."""

    def version_settings(self) -> dict[str, str]:
        """Add the template, which stands in the environment alone."""
        return super().version_settings() | {"LOGGING__LOG_FILENAME_TEMPLATE": TEMPLATE}

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear a run, as a user does in the UI."""
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False}
        self._ask("POST", f"dags/{dag_id}/clearTaskInstances", body)


class Traced(NamedTuple):
    """A traced session: its verdicts, the requests that were sent, and all that was written."""

    verdicts: list[Verdict]
    requests: list[tuple[str, str]]
    pids: dict[str, list[int]]
    recording: Path
    log: str
    password: str

    def of(self, case: str) -> list[Verdict]:
        """Verdicts of a case, by try."""
        mine = [verdict for verdict in self.verdicts if verdict.task.dag_id == f"case_{case}"]
        return sorted(mine, key=lambda verdict: verdict.task.try_number or 0)


def played(folder: Path) -> Traced:
    """Run the cases on Airflow 3.3.2, traced with nothing but its API."""
    release = install("3.3.2")
    home, log, recording = folder / "home", folder / "trace.log", folder / "session.db"
    home.mkdir()
    ledger = Ledger(home)
    host = Named(release, ledger, DAGS, with_triggerer=True)
    try:
        host.start()
        host.wait_for_dags({f"case_{case}" for case in CASES})
        with recorded(host._port) as (url, requests), log.open("wb") as output:
            trace = subprocess.Popen(
                [
                    *(str(PIDTRAIL), "trace", "--pid", str(host.scheduler.pid), "--format", "none"),
                    *("--airflow-api", url, "-o", str(recording)),
                ],
                cwd=ROOT,
                env=os.environ
                | {"PIDTRAIL_AIRFLOW_USER": "stage", "PIDTRAIL_AIRFLOW_PASSWORD": host._password},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                wait_until(lambda: len(requests) > 2, within_s=30, what="pidtrail's first poll")
                for case in CASES:
                    host.trigger(f"case_{case}", RUN_ID)
                host.wait_for_end("case_bash", RUN_ID, within_s=90)
                host.clear("case_bash", RUN_ID)
                host.wait_for_note("case_bash", count=2, within_s=90)
                for case in CASES:
                    host.wait_for_end(f"case_{case}", RUN_ID, within_s=120)
            finally:
                trace.send_signal(signal.SIGINT)
                trace.wait(30)
        notes = host.notes()
    finally:
        ledger.stop_all()
    explained = subprocess.run(
        [str(PIDTRAIL), "explain", str(recording), "--json"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    pids = {case: [n.pid for n in notes if n.dag_id == f"case_{case}"] for case in CASES}
    verdicts = msgspec.json.decode(explained.stdout, type=Report).verdicts
    return Traced(verdicts, requests, pids, recording, log.read_text(), host._password)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return played(tmp_path_factory.mktemp("rest"))


def test_the_api_alone_gives_a_match(traced: Traced) -> None:
    """The recorded pid came over REST, and is the process that noted itself."""
    verdict = traced.of("bash")[-1]

    assert verdict.code == "match"
    assert {seen.via for seen in verdict.recorded} == {"rest"}
    assert [seen.pid for seen in verdict.recorded if seen.pid][-1] in traced.pids["bash"]


def test_a_clear_is_told_with_the_audit_row_that_proves_it(traced: Traced) -> None:
    """The audit log is read over the API, so the reason is known."""
    first, second = traced.of("bash")

    assert [first.code, second.code] == ["clear", "match"]
    rows = {
        event.seq
        for event in Replay(str(traced.recording)).events()
        if isinstance(event, AirflowFact)
        and (event.table, event.origin) == ("log", "airflow-rest")
        and "clear" in str(event.event)
    }
    assert rows & set(first.evidence)


@pytest.mark.parametrize("case", ["reschedule", "deferral"])
def test_processes_of_one_try_are_told_apart_by_state_and_audit_log(
    traced: Traced, case: str
) -> None:
    """`task_reschedule` is not to be had over the API, and not needed for the verdict."""
    (verdict,) = traced.of(case)

    assert verdict.code == case
    assert verdict.outcome == "explained"
    runners = {process.pid for process in verdict.processes if process.role == "runner"}
    assert runners == set(traced.pids[case])
    assert len(runners) > 1


def test_logs_named_by_a_template_of_the_users_own_are_read(traced: Traced) -> None:
    """The recording explains itself: template and folder stand in it, found without a database."""
    names, paths = LogNames(), set()
    for event in Replay(str(traced.recording)).events():
        if isinstance(event, AirflowFact):
            names.learn(event)
        elif isinstance(event, Observed) and event.log_path is not None:
            paths.add(event.log_path)

    read = {(t.dag_id, t.run_id, t.map_index, t.try_number) for t in map(names.task, paths) if t}
    assert len(read) == len(paths)
    # Of a task that ends at once, as case_retry does, the open log may be gone before the look.
    assert {("case_bash", RUN_ID, -1, 1), ("case_bash", RUN_ID, -1, 2)} <= read


def test_a_retry_is_told_over_the_api(traced: Traced) -> None:
    """Both tries have their own recorded pid, the first one from the history too."""
    first, second = traced.of("retry")

    assert [first.code, second.code] == ["retry", "match"]
    tables = {seen.table for verdict in (first, second) for seen in verdict.recorded}
    assert tables == {"task_instance", "task_instance_history"}


def test_nothing_but_get_and_the_login_is_sent(traced: Traced) -> None:
    """Airflow is only asked; the one POST is the login, and one is enough."""
    posted = [path for method, path in traced.requests if method != "GET"]

    assert {method for method, _ in traced.requests} == {"GET", "POST"}
    assert posted == ["/auth/token"]
    assert any(path.startswith("/api/v2/eventLogs") for _, path in traced.requests)


def test_no_secret_is_written(traced: Traced) -> None:
    """The header tells the address; neither recording nor log holds the password."""
    header = Replay(str(traced.recording)).header

    assert header.airflow_api is not None
    assert header.airflow_api.startswith("http://127.0.0.1:")
    assert header.airflow_db is None
    assert traced.password.encode() not in traced.recording.read_bytes()
    assert traced.password not in traced.log


def test_the_webserver_of_2_tells_the_pid(tmp_path: Path) -> None:
    """A run of 2.11.2 is read with basic auth, by GET alone; a wrong password is one line."""
    release, (port,) = install("2.11.2"), free_ports(1)
    home, password = tmp_path / "home", secrets.token_hex(12)
    home.mkdir()
    environ = {
        **{k: v for k, v in airflow_environ().items() if not k.lower().endswith("_proxy")},
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        FOLDER_VARIABLE: str(home / "notes"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
    }
    (home / "notes").mkdir()
    began_ns = time.time_ns()
    ledger = Ledger(home)
    airflow = [str(release.python), str(release.command)]

    def run(line: str) -> None:
        subprocess.run([*airflow, *line.split()], env=environ, check=True, capture_output=True)

    try:
        run("db migrate")
        run(f"users create -u reader -p {password} -f a -l b -r Admin -e a@b.c")
        web = ["webserver", "--workers", "1", "--hostname", "127.0.0.1", "--port", str(port)]
        ledger.spawn("webserver", [*airflow, *web], environ)
        run("dags reserialize")
        run("dags test case_bash")
        with recorded(port) as (url, requests):
            source = Rest(url, Credentials("reader", password), since_epoch_ns=began_ns)
            events = wait_until(lambda: told(source), within_s=40, what="the webserver")
            with pytest.raises(ApiError, match="refuses user and password") as refused:
                Rest(url, Credentials("reader", "wr0ng"), since_epoch_ns=began_ns).poll(1)
    finally:
        ledger.stop_all()

    event = next(one for one in events or () if isinstance(one, TaskReported))
    assert event.task is not None
    assert (event.task.dag_id, event.task.try_number) == ("case_bash", 1)
    assert event.recorded_pid in {note.pid for note in read_notes(home / "notes")}
    assert (event.via, event.state) == ("rest", "success")
    said = [one.event for one in events or () if isinstance(one, AirflowFact)]
    assert "cli_users_create" in said
    assert "success" in said
    assert source.problem is None
    assert {method for method, _ in requests} == {"GET"}
    assert "wr0ng" not in str(refused.value)


def told(source: Rest) -> list[Event]:
    """Return what the first poll brings, nothing while nobody answers."""
    try:
        events = source.poll(1)
    except ApiError:
        return []
    return events if any(isinstance(one, TaskReported) for one in events) else []
