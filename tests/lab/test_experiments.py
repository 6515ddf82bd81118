"""The whole lab, really run once with each source, and what each experiment then must say."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pidtrail.lab import cgroup
from pidtrail.lab.catalogue import EXPERIMENTS
from pidtrail.lab.leftovers import marked, owner
from pidtrail.lab.page_out import has_swap
from pidtrail.lab.runner import Runner
from tests.programs.nobody import as_nobody

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]

MOST_SECONDS = 60
PATIENCE_S = 200
LABS: set[int] = set()
"""The numbers of the labs that ran here: others of this host may be at work now."""
KEEPS = [name for name, kind in EXPERIMENTS.items() if kind.family == "keeps"]
NEW = [name for name, kind in EXPERIMENTS.items() if kind.family == "new"]
REPARENTED = {"reparent", "subreaper", "double-fork", "restart"}
SIGSTOP = int(signal.SIGSTOP)


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `pidtrail lab` to its end."""
    command = [sys.executable, "-m", "pidtrail", "lab", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        LABS.add(process.pid)
        try:
            said, complained = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


@functools.cache
def whole(source: str = "core") -> dict[str, Any]:
    """Return what the whole lab says, run once for all tests."""
    done = lab("--json", "--source", source)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def result(name: str) -> dict[str, Any]:
    """Return the result of one experiment, which must have been done."""
    (one,) = [each for each in whole()["results"] if each["name"] == name]
    if name == "sudo-chain" and shutil.which("sudo") is None and not os.environ.get("REQUIRE"):
        pytest.skip("needs sudo")
    if name.startswith("cpu-migration") and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    assert one["skipped"] is None
    assert one["holds"] is True, one["contradicted"]
    return one


def records(one: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the records of a kind in the evidence."""
    return [record for record in one["evidence"] if record["type"] == kind]


def test_the_whole_lab_is_done_within_a_minute() -> None:
    report = whole()

    assert report["schema"] == "pidtrail.lab/1"
    assert [one["name"] for one in report["results"]] == list(EXPERIMENTS)
    assert report["holds"] is True
    assert report["seconds"] < MOST_SECONDS


@pytest.mark.parametrize("name", KEEPS)
def test_a_process_keeps_its_pid(name: str) -> None:
    """Number, start time, pidfs inode and all numbers of namespaces are the same afterwards."""
    one = result(name)

    assert one["pid_changed"] is False
    assert one["same_process"] is True
    assert one["parent_changed"] is (name in REPARENTED)
    for field in ("pid", "pid_ns", "start_ticks", "start_ns", "pidfs_inode", "ns_pids"):
        assert one["before"][field] == one["after"][field], field
    assert one["before"]["start_ns"] is not None
    births = [(record["pid"], record["start_ns"]) for record in records(one, "fork")]
    assert births.count((one["before"]["pid"], one["before"]["start_ns"])) == 1


@pytest.mark.parametrize("name", NEW)
def test_another_pid_is_another_process(name: str) -> None:
    one = result(name)

    assert one["pid_changed"] is True
    assert one["same_process"] is False
    assert one["parent_changed"] is (name in REPARENTED)
    assert one["before"]["pid"] != one["after"]["pid"]
    assert one["before"]["start_ns"] != one["after"]["start_ns"]


@pytest.mark.parametrize("name", ["cpu-migration", "cpu-migration-threads"])
def test_a_thousand_moves_and_two_ways_to_count_them(name: str) -> None:
    counts = result(name)["exercised"]

    assert counts["migrate"] >= 1_000
    assert counts["migrate"] == counts["migrations"]
    assert counts["cpus"] >= 2
    if name.endswith("threads"):
        assert counts["threads"] == 4


def test_moves_are_keyed_by_who_moves() -> None:
    """Not by `current`, which is another task's at that moment."""
    one = result("cpu-migration")

    assert {move["tid"] for move in records(one, "migrate")} == {one["before"]["pid"]}
    assert all(move["from_cpu"] != move["to_cpu"] for move in records(one, "migrate"))


def test_a_hundred_thousand_switches() -> None:
    assert result("context-switch")["exercised"]["context_switches"] >= 100_000


def test_pages_come_back_by_major_faults() -> None:
    one = result("page-out")

    assert one["exercised"]["major_faults"] >= 900
    assert [note for note in one["notes"] if "no swap" in note] == (
        [] if has_swap() else ["this host has no swap: tested was the half with a mapped file"]
    )


def test_memory_pressure_is_felt() -> None:
    counts = result("memory-pressure")["exercised"]

    assert counts["major_faults"] > 4096
    assert counts["limit_hits"] > 0
    assert "oom" not in counts


def test_stops_are_sent_by_the_lab() -> None:
    one = result("stop-continue")

    assert one["exercised"]["SIGSTOP"] == one["exercised"]["SIGCONT"] == 20
    stops = [sent for sent in records(one, "signal") if sent["sig"] == SIGSTOP]
    assert {sent["sender_pid"] for sent in stops} != {None}


def test_a_debugger_is_no_parent() -> None:
    one = result("ptrace-attach")

    assert one["exercised"]["SIGSTOP"] == 10
    assert one["before"]["ppid"] == one["after"]["ppid"]


def test_exec_counts_images() -> None:
    one = result("exec")

    ids = [record["exec_id"] for record in records(one, "exec")]
    assert ids == list(range(ids[0], ids[0] + 5))


def test_a_threads_own_number_changes() -> None:
    """The one case: the tid goes, the PID stays."""
    one = result("exec-from-thread")
    pid = one["before"]["pid"]

    (record,) = records(one, "exec")
    assert record["old_tid"] in one["before"]["tids"]
    assert record["old_tid"] != pid
    assert one["after"]["tids"] == [pid]


def test_cgroups_are_seen_in_the_records() -> None:
    counts = result("cgroup-move")["exercised"]

    assert counts["cgroup_moves"] == 40
    assert counts["cgroups"] == 2


def test_nothing_is_born_while_frozen() -> None:
    assert result("freeze")["exercised"]["children"] == 5


def test_another_user_and_another_session() -> None:
    users, session = result("setuid"), result("setsid-setpgid")

    assert (users["before"]["uid"], users["after"]["uid"]) == (0, 65_534)
    assert session["after"]["sid"] == session["after"]["pgid"] == session["after"]["pid"]
    assert session["before"]["sid"] != session["after"]["sid"]


@pytest.mark.parametrize(("name", "adoptions"), [("reparent", 1), ("subreaper", 2)])
def test_an_orphan_has_another_parent_and_the_same_number(name: str, adoptions: int) -> None:
    one = result(name)

    assert one["exercised"]["adoptions"] == adoptions
    (birth,) = [record for record in records(one, "fork") if record["pid"] == one["before"]["pid"]]
    (end,) = [record for record in records(one, "exit") if record["pid"] == one["before"]["pid"]]
    assert birth["ppid"] == one["before"]["ppid"] != end["ppid"] == one["after"]["ppid"]


def test_a_restart_leaves_the_old_worker() -> None:
    one = result("restart")

    assert any(record["termsig"] == signal.SIGKILL for record in records(one, "exit"))
    assert "its worker lived on with the same number and start" in one["expected"]["also"]


def test_a_retry_is_a_second_birth() -> None:
    one = result("retry")

    ends = {record["pid"]: record["exit_code"] for record in records(one, "exit")}
    assert ends[one["before"]["pid"]] == 1
    assert ends[one["after"]["pid"]] == 0


def test_sudo_makes_levels() -> None:
    counts = result("sudo-chain")["exercised"]

    assert counts["levels_without_terminal"] >= 2
    assert counts["levels_with_terminal"] >= counts["levels_without_terminal"]


def test_one_process_three_numbers() -> None:
    one = result("pid-namespace")
    numbers = one["before"]["ns_pids"]

    assert one["same_process"] is True
    assert one["parent_changed"] is False
    assert len(set(numbers)) == 3
    assert (one["before"]["pid"], one["after"]["pid"]) == (numbers[0], numbers[-1])
    assert one["before"]["pidfs_inode"] == one["after"]["pidfs_inode"]


def test_one_number_two_processes() -> None:
    one = result("pid-reuse")
    before, after = one["before"], one["after"]

    assert before["pid"] == after["pid"]
    assert before["pid_ns"] == after["pid_ns"]
    assert before["start_ns"] != after["start_ns"]
    assert one["same_process"] is False
    if before["pidfs_inode"] is not None:
        assert before["pidfs_inode"] != after["pidfs_inode"]
    # The host's own limit is none of our business.
    assert int(Path("/proc/sys/kernel/pid_max").read_text()) > 320


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_result_rests_on_records(name: str) -> None:
    """Counts and evidence come from the source; a kind that is counted is shown."""
    one = result(name)

    assert {record["origin"] for record in one["evidence"]} == {"core"}
    shown = {record["type"] for record in one["evidence"]}
    assert {"fork", "exit"} <= shown
    assert one["exercised"].keys() & {"migrate", "exec", "title", "signal"} <= shown


def test_nothing_is_left() -> None:
    whole()
    ours = {f"-{pid}-" for pid in LABS}

    assert [mark for _, mark in marked() if any(one in mark for one in ours)] == []
    assert [path for path in cgroup.found() if any(one in path.name for one in ours)] == []


def test_claims_are_answered_in_a_sentence_each() -> None:
    claims = whole()["claims"]

    assert {claim["answer"] for claim in claims} == {"refuted", "half true"}
    assert len(claims) == 10


def test_the_connector_evidences_what_it_can() -> None:
    """Nothing is contradicted for lack of a field; what cannot be evidenced names the lack."""
    try:
        results = {one["name"]: one for one in whole("connector")["results"]}
    except AssertionError as error:
        if "connector" in str(error) and not os.environ.get("REQUIRE"):
            pytest.skip("needs the proc connector")
        raise

    assert results["exec"]["holds"] is True
    assert results["reparent"]["holds"] is True
    assert "has_counters" in results["context-switch"]["skipped"]
    assert "has_signals" in results["stop-continue"]["skipped"]


def test_proc_alone_evidences_nothing_and_says_so() -> None:
    """Polling sees no process that lives for milliseconds."""
    report = whole("procfs")

    assert all("sees_short_lived" in one["skipped"] for one in report["results"])
    assert all(one["holds"] is None for one in report["results"])
    assert {claim["answer"] for claim in report["claims"]} == {"not tested"}


def test_one_cpu_is_not_enough_to_move() -> None:
    done = subprocess.run(
        [
            *("taskset", "-c", str(min(os.sched_getaffinity(0)))),
            *(sys.executable, "-m", "pidtrail", "lab", "--json"),
            *("cpu-migration", "context-switch"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    moved, switched = json.loads(done.stdout)["results"]

    assert "two CPUs" in moved["skipped"]
    assert moved["holds"] is None
    assert switched["holds"] is True


def test_verbose_shows_the_events_as_they_come() -> None:
    done = lab("rename", "--verbose", "--source", "core")

    assert done.returncode == 0
    assert done.stdout.count("calls itself try ") == 10
    assert "PID kept" in done.stdout
    assert done.stderr == ""


def test_verbose_json_is_json_all_the_same() -> None:
    done = lab("rename", "--verbose", "--json", "--source", "core")

    assert json.loads(done.stdout)["holds"] is True
    assert done.stderr.count("calls itself try ") == 10


@pytest.mark.parametrize("name", ["freeze", "memory-pressure"])
def test_version_1_cgroups_alone_will_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hosts have no version 2 at all."""
    _, controllers = cgroup.tops()
    wanted = "freezer" if name == "freeze" else "memory"
    if wanted not in controllers:
        pytest.skip(f"no {wanted} controller of version 1 here")
    monkeypatch.setattr(cgroup, "tops", lambda: (None, controllers))

    (one,) = Runner("core").run([name]).results

    assert one.skipped is None
    assert one.holds is True
    assert [path for path in cgroup.found() if cgroup.owner_in(path.name) == owner()] == []


def test_the_lab_works_in_a_pid_namespace_of_its_own() -> None:
    """As in a container: all numbers are those seen in there."""
    done = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-m", "pidtrail", "lab", "--json", "--source", "core"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for one in json.loads(done.stdout)["results"]:
        assert one["holds"] is True or one["name"] == "sudo-chain", (one["name"], one["skipped"])


def test_an_ordinary_user_is_told_what_is_needed() -> None:
    """No right to trace is no result: one line, status 1."""
    done = subprocess.run(
        [
            *as_nobody(),
            *(sys.executable, "-m", "pidtrail", "lab", "--source", "core"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "CAP_BPF" in done.stderr


@pytest.mark.needs_bcc
def test_bcc_evidences_the_same() -> None:
    """It has all fields; each experiment compiles anew, so some of them stand for all."""
    done = lab("--json", "--source", "bcc", "cpu-migration", "page-out", "setuid", "restart")

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    report = json.loads(done.stdout)
    assert report["source"] == "bcc"
    assert [one["holds"] for one in report["results"]] == [True] * 4, report["results"]
    assert {record["origin"] for one in report["results"] for record in one["evidence"]} == {"bcc"}
