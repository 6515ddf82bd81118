"""
Real Airflow in containers: PID and UTS namespaces and cgroups, as a runtime makes them.

One Airflow 3.3.2 is played once, watched by three pidtrails: on the host, on
one of two nodes, and in the container that the scheduler is in.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from demo import ROOT
from demo.airflow3 import database_url, migrated_template
from demo.environment import install
from demo.processes import clear_leftovers
from demo.witness import Note, read_notes
from pidtrail.verdict.model import ProcessReport, Report, Verdict
from tests.airflow.conftest import FAILURES
from tests.airflow.examples import assert_shown, of_stage
from tests.contract.story import own_pid_max

PIDTRAIL = Path(sys.executable).with_name("pidtrail")
VERSION = "3.3.2"
PLAY_TIMEOUT_S = 600
END_TIMEOUT_S = 40
OLD_NAME = "ip-10-0-0-7.old.example"

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_bpf,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not own_pid_max(), reason="kernel.pid_max is the whole host's before 6.14"),
]


class Stage(NamedTuple):
    """What was played, what the tasks wrote down, and what each pidtrail says."""

    home: Path
    done: dict[str, Any]
    notes: list[Note]
    reports: dict[str, Report]

    def verdicts(self, where: str, case: str) -> list[Verdict]:
        """Verdicts of a pidtrail on one case, by run and try."""
        mine = [v for v in self.reports[where].verdicts if v.task.dag_id == f"case_{case}"]
        return sorted(mine, key=lambda one: (one.task.run_id or "", one.task.try_number or 0))

    def noted(self, case: str) -> list[Note]:
        """Notes of one case, oldest first; their numbers are the container's."""
        return [note for note in self.notes if note.dag_id == f"case_{case}"]

    def pod(self, case: str, try_number: int = 1) -> dict[str, Any]:
        """Return what a pod was made of."""
        (found,) = [p for p in self.done["pods"] if p["task"] == [f"case_{case}", try_number]]
        return dict(found)

    def log(self, where: str) -> bytes:
        """Return a recording as JSON lines."""
        return ran("export", str(self.recording(where)), "--to", "jsonl")

    def recording(self, where: str) -> Path:
        """Return a recording."""
        return self.home / f"{where}.db"


def ran(*words: str) -> bytes:
    """Return what a command of pidtrail prints."""
    done = subprocess.run([str(PIDTRAIL), *words], capture_output=True, check=True, timeout=60)
    return done.stdout


def explained(recording: Path, *words: str) -> Report:
    """Return the verdicts on a recording."""
    return msgspec.json.decode(ran("explain", str(recording), "--json", *words), type=Report)


def runner(verdict: Verdict) -> ProcessReport:
    """Return the one process that ran an attempt."""
    (found,) = [process for process in verdict.processes if process.role == "runner"]
    return found


def wait_for(condition: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    """Wait until it is so; fails the test with `what`."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(what(), pytrace=False)
        time.sleep(0.05)


def play(folder: Path) -> Stage:
    """Start the driver, watch it, let it play, and end what watches before what is watched."""
    migrated_template(install(VERSION))
    home = folder / "home"
    home.mkdir()
    result, host, log = home / "result.json", home / "host.db", folder / "driver.log"
    with log.open("wb") as output, (folder / "trace.log").open("wb") as trace_output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.airflow.container_driver", VERSION, str(home)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
        assert driver.stdin is not None
        options = ["--format", "none", "--airflow-db", database_url(home), "-o", str(host)]
        trace = subprocess.Popen(
            [str(PIDTRAIL), "trace", "--pid", str(driver.pid), *options],
            stdout=trace_output,
            stderr=trace_output,
        )
        try:
            said = folder / "trace.log"
            wait_for(
                lambda: "attached" in said.read_text() or trace.poll() is not None,
                30,
                said.read_text,
            )
            driver.stdin.write(b"play\n")
            driver.stdin.flush()
            wait_for(
                lambda: result.exists() or driver.poll() is not None, PLAY_TIMEOUT_S, log.read_text
            )
            trace.terminate()
            trace.wait(END_TIMEOUT_S)
        finally:
            driver.stdin.close()
            try:
                status = driver.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                driver.kill()
                status = driver.wait()
                clear_leftovers()
            if trace.poll() is None:
                trace.kill()
                trace.wait()
    if status or trace.returncode or not result.exists():
        pytest.fail(f"status {status}, {trace.returncode}: {log.read_text()}", pytrace=False)
    told = {
        where: ran("explain", str(home / f"{where}.db"), "--json")
        for where in ("host", "node-1", "airflow-0")
    }
    # For tests.airflow.examples.
    (folder / "verdicts.json").write_bytes(told["host"])
    (folder / "verdicts-node-1.json").write_bytes(told["node-1"])
    return Stage(
        home,
        json.loads(result.read_bytes()),
        read_notes(home / "notes"),
        {where: msgspec.json.decode(text, type=Report) for where, text in told.items()},
    )


@functools.cache
def played_once(base: Path) -> Stage | str:
    """Return the stage, or why there is none; tests must not wait for a failure again."""
    folder = base / f"containers-{VERSION}"
    folder.mkdir()
    try:
        return play(folder)
    except (*FAILURES, pytest.fail.Exception) as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Everything about the one Airflow; played when the first test asks for it."""
    outcome = played_once(tmp_path_factory.getbasetemp())
    if isinstance(outcome, str):
        pytest.fail(outcome, pytrace=False)
    return outcome


@pytest.mark.parametrize("case", ["pod_1", "pod_2"])
def test_a_task_in_a_pod_is_the_process_on_record(stage: Stage, case: str) -> None:
    """Airflow recorded the pod's number, the node has another: one process, and both are named."""
    (verdict,) = stage.verdicts("host", case)
    (note,) = stage.noted(case)
    process = runner(verdict)

    assert (verdict.code, verdict.confidence) == ("match-via-namespace", "proved")
    assert verdict.recorded[-1].pid == note.pid
    assert process.ns_pids is not None
    assert (process.ns_pids[0], process.ns_pids[-1]) == (process.pid, note.pid)
    assert process.start_ticks == note.start_ticks
    assert process.pid != note.pid
    assert f"PID {note.pid}, recorded" in verdict.summary
    assert f"process {process.pid} here in container" in verdict.summary


@pytest.mark.parametrize("case", ["pod_1", "pod_2"])
def test_the_pod_of_a_task_is_named(stage: Stage, case: str) -> None:
    """Container and pod are those that the node made, for the runner and for its supervisor."""
    (verdict,) = stage.verdicts("host", case)
    pod = stage.pod(case)

    assert verdict.recorded[-1].hostname == pod["hostname"]
    assert {process.role for process in verdict.processes} >= {"supervisor", "runner"}
    assert {(p.container, p.pod_uid) for p in verdict.processes} == {
        (pod["container"], pod["pod_uid"])
    }


def test_a_retry_in_another_pod(stage: Stage) -> None:
    """Each try is a process in a container of its own, whatever numbers they have in there."""
    first, second = stage.verdicts("host", "pod_retry")

    assert [first.code, second.code] == ["retry", "match-via-namespace"]
    assert f"PID {first.recorded[-1].pid} is process {runner(first).pid} here in" in first.summary
    for number, verdict in enumerate((first, second), 1):
        assert runner(verdict).container == stage.pod("pod_retry", number)["container"]
        assert runner(verdict).start_ticks == stage.noted("pod_retry")[number - 1].start_ticks


def test_inside_the_container_it_is_a_plain_match(stage: Stage) -> None:
    """Beside Airflow pidtrail has the same numbers, and says of which namespace they are."""
    report = stage.reports["airflow-0"]
    verdicts = stage.verdicts("airflow-0", "local")
    text = ran("explain", str(stage.recording("airflow-0"))).decode()

    assert {verdict.code for verdict in verdicts} == {"match"}
    assert {runner(v).pid for v in verdicts} == {note.pid for note in stage.noted("local")}
    assert report.pid_ns not in (None, Path("/proc/self/ns/pid").stat().st_ino)
    assert f"PID namespace {report.pid_ns}" in text


def test_a_host_of_another_name_is_no_other_host(stage: Stage) -> None:
    """Airflow there calls itself by an old name; the processes prove that it is this host."""
    verdicts = stage.verdicts("airflow-0", "local")

    assert {seen.hostname for v in verdicts for seen in v.recorded if seen.pid} == {OLD_NAME}
    assert stage.reports["airflow-0"].host == "airflow-0"
    assert {verdict.code for verdict in verdicts} == {"match"}


@pytest.mark.parametrize("where", ["host", "airflow-0"])
def test_two_runs_of_one_number_are_two_processes(stage: Stage, where: str) -> None:
    """The kernel gave one number to both; each run has the process with its own start."""
    by_run = {verdict.task.run_id: verdict for verdict in stage.verdicts(where, "local")}
    one, other = (by_run[run] for run in stage.done["twins"])
    starts = {note.run_id: note.start_ticks for note in stage.noted("local")}

    assert one.recorded[-1].pid == other.recorded[-1].pid
    assert [runner(v).start_ticks for v in (one, other)] == [
        starts[run] for run in stage.done["twins"]
    ]
    assert runner(one).start_ticks != runner(other).start_ticks


@pytest.mark.parametrize("where", ["host", "airflow-0"])
def test_a_number_that_stands_in_a_row_is_another_process_by_now(stage: Stage, where: str) -> None:
    """Both are named by their starts, from the host and from inside, and the row still stands."""
    (verdict,) = stage.verdicts(where, "lost")
    lost = stage.done["lost"]

    assert (verdict.code, verdict.confidence) == ("pid-reused", "proved")
    assert verdict.recorded[-1].pid == lost["number"]
    assert verdict.recorded[-1].state == "running"
    assert runner(verdict).start_ticks == lost["runner"][1]
    evidence = [
        record
        for record in map(json.loads, stage.log(where).splitlines())
        if record.get("seq") in verdict.evidence and record.get("ns_pids")
    ]
    starts = {r["start_ticks"] for r in evidence if r["ns_pids"][-1] == lost["number"]}
    assert starts == {lost["runner"][1], lost["holder"][1]}
    assert (runner(verdict).started or "")[:23] in verdict.summary
    assert verdict.summary.count("started ") == 2


def test_asking_for_the_number_leads_to_the_row_that_shows_it(stage: Stage) -> None:
    """`explain --pid N`, asked with the number that the row shows."""
    number = stage.done["lost"]["number"]
    found = explained(stage.recording("host"), "--pid", str(number)).verdicts

    codes = {verdict.task.dag_id: verdict.code for verdict in found}
    assert codes["case_lost"] == "pid-reused"


@pytest.mark.parametrize("case", ["pod_2", "local", "lost"])
def test_what_runs_elsewhere_is_another_hosts(stage: Stage, case: str) -> None:
    """On node-1 the other node's pod, and the scheduler's own tasks, are recorded elsewhere."""
    verdicts = stage.verdicts("node-1", case)

    assert verdicts
    for verdict in verdicts:
        hostname = verdict.recorded[-1].hostname
        assert (verdict.code, verdict.outcome) == ("other-host", "explained")
        assert f"recorded on host {hostname}, not here on node-1" in verdict.summary
        assert any(f"on {hostname}: pidtrail has to run there" in u for u in verdict.unknowns)


def test_the_node_knows_its_own_pods(stage: Stage) -> None:
    """Seen from the node, which is itself in a namespace, the pod on it is matched by number."""
    (verdict,) = stage.verdicts("node-1", "pod_1")
    process = runner(verdict)

    assert verdict.code == "match-via-namespace"
    assert process.ns_pids is not None
    assert process.ns_pids[-2:] == [process.pid, stage.noted("pod_1")[0].pid]
    assert process.container == stage.pod("pod_1")["container"]


def test_the_token_of_a_workload_is_in_no_recording(stage: Stage) -> None:
    """`--json-string` carries one in the real command line, and it is replaced."""
    token = json.loads(next((stage.home / "nodes" / "node-1").glob("*.json")).read_bytes())["token"]
    assert token.count(".") == 2

    for where in ("host", "node-1"):
        words = [
            record["argv"]
            for record in map(json.loads, stage.log(where).splitlines())
            if record.get("argv") and "--json-string" in record["argv"]
        ]
        assert words
        assert {w[w.index("--json-string") + 1] for w in words} == {"[redacted]"}
        assert token[:40].encode() not in stage.log(where)


@pytest.mark.parametrize("code", of_stage("containers"))
def test_example_has_the_verdict_that_it_stands_for(stage: Stage, code: str) -> None:
    """What the page of verdicts shows of this stage is what is played here."""
    assert_shown(code, stage.home.parent)


def test_nothing_is_left_of_the_containers(stage: Stage) -> None:
    """No process with the stage's folder as its own, and no cgroup of its pods."""
    left = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and path.name != str(os.getpid()):
            try:
                if (path / "cwd").readlink() == stage.home:
                    left.append(path.name)
            except OSError:
                continue
    ids = {pod["container"] for pod in stage.done["pods"]}
    assert left == []
    assert not [
        p for p in Path("/sys/fs/cgroup").rglob("*.scope") if p.name.split("-")[-1][:64] in ids
    ]
