"""Rules about a number that means another thing here: the stories that come near them."""

from __future__ import annotations

import signal

import pytest
from msgspec import structs

from pidtrail.events import Fork, Observed, TaskReported
from tests.unit.example_stories import FAILED, match_via_namespace, pid_reused, three
from tests.unit.story import FULL, Airflow2, Airflow3, at, ref, uuid

POD = "ff49d0be-16b7-4a49-bb9e-8ec1f1f4e27f"
CONTAINER = "3f2a" * 16
CGROUP = f"/kubepods/burstable/pod{POD}/{CONTAINER}"


def contained(*states: str) -> Airflow3:
    """A run in a container, PID 30 there and 1002 here, that ended after the row had said this."""
    story = Airflow3().title("worker", f"airflow worker -- LocalExecutor: {uuid(1)}")
    story.fork("worker", "runner", ns_pids=[1002, 30])
    confine(story, "runner", 2).title("runner", f"airflow worker -- {uuid(1)}")
    for state in states:
        story.report(ref(1, uuid(1)), state, 30, hostname="pod-a")
    return story.exit("runner", FAILED).wait(60)


def confine(story: Airflow3, name: str, pid_ns: int) -> Airflow3:
    """Say in which PID namespace, and container, a process was born that was just mentioned."""
    fork = story.events[-1]
    story.events[-1] = structs.replace(fork, pid_ns=pid_ns)
    head, identity = story.next(), story.identity(name)
    story.events.append(Observed(*head, *identity, cgroup=CGROUP, pid_ns=pid_ns))
    return story


def test_a_number_of_no_namespace_of_the_runner_is_no_match() -> None:
    """The runner is in two namespaces, and has neither there nor here the number on record."""
    story, _ = match_via_namespace()
    story.report(ref(1, uuid(1)), "success", 31)

    assert story.verdict().code == "undetermined"


def test_the_same_number_in_both_namespaces_is_a_plain_match() -> None:
    """Nothing has to be translated."""
    story = Airflow3().title("worker", f"airflow worker -- LocalExecutor: {uuid(1)}")
    story.fork("worker", "runner", pid=30, ns_pids=[30, 30])
    story.title("runner", f"airflow worker -- {uuid(1)}").report(ref(1, uuid(1)), "running", 30)

    assert story.verdict().code == "match"


def test_the_name_of_a_container_seen_here_is_not_another_host() -> None:
    """A run that matched under a name makes it a name of this host for all runs."""
    story, _ = match_via_namespace()
    story.report(ref(2, uuid(2)), "running", 44, hostname="3f1c5a9e0b7d")

    assert story.verdict(2).code == "never-seen"


@pytest.mark.parametrize("hostname", ["WORKER-1", "worker-1.example.com", "10.0.0.7", None])
def test_other_words_for_this_host_are_not_another_host(hostname: str | None) -> None:
    """With a domain or without; nor an address, where those of this host are not known."""
    story = Airflow3().report(ref(1, uuid(1)), "running", 4711, hostname=hostname)

    assert story.verdict().code == "never-seen"


@pytest.mark.parametrize(
    ("hostname", "code"),
    [
        ("10.0.0.7", "never-seen"),
        ("fd00:0::7", "never-seen"),
        ("127.0.1.1", "never-seen"),
        ("10.0.0.300", "never-seen"),
        ("10.0.0.8", "other-host"),
        ("fd00::8", "other-host"),
    ],
)
def test_an_address_is_compared_with_those_of_this_host(hostname: str, code: str) -> None:
    """hostname_callable may be get_host_ip_address; loopback is any host's."""
    story = Airflow3().report(ref(1, uuid(1)), "running", 4711, hostname=hostname)

    report = story.judge(addresses=["10.0.0.7", "fd00::7"])

    assert [verdict.code for verdict in report.verdicts] == [code]


def test_the_address_of_a_container_seen_here_is_not_another_host() -> None:
    """A run that matched under an address makes it one of this host, as a name does."""
    story = contained("running")
    story.events = [
        structs.replace(one, hostname="10.9.0.2") if isinstance(one, TaskReported) else one
        for one in story.events
    ]
    story.report(ref(2, uuid(2)), "running", 44, hostname="10.9.0.2")

    codes = [verdict.code for verdict in story.judge(addresses=["10.0.0.7"]).verdicts]

    assert codes[1] == "never-seen"


def test_a_number_recorded_at_a_containers_address_is_not_compared_with_ours() -> None:
    """Whoever has that number here has another one there."""
    story = contained("running")
    story.events = [
        structs.replace(one, hostname="10.9.0.2") if isinstance(one, TaskReported) else one
        for one in story.events
    ]
    story.fork("scheduler", "sshd", pid=44)
    story.report(ref(2, uuid(2)), "running", 44, hostname="10.9.0.2")

    (verdict,) = [v for v in story.judge().verdicts if v.task.try_number == 2]

    assert "The process with that number" not in verdict.summary


def test_a_process_here_and_a_record_elsewhere_are_a_conflict() -> None:
    """Airflow has it running on another host while it runs here."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner")
    story.report(ref(1, uuid(1)), "running", 4711, hostname="worker-2")

    verdict = story.verdict()

    assert (verdict.code, verdict.outcome) == ("other-host", "conflict")


def test_a_retry_on_another_host_leaves_the_first_try_alone() -> None:
    """Each try has the host of its own rows."""
    story = three().exit("runner", signal.SIGKILL)
    story.report(ref(1, uuid(1)), "up_for_retry", "runner")
    story.report(ref(2, uuid(2)), "running", 4711, hostname="worker-2")

    assert [v.code for v in story.judge().verdicts] == ["retry", "other-host"]


def test_a_number_given_out_again_after_an_orderly_end_is_history() -> None:
    """The row does not claim that it runs: the record is of the process that ran it."""
    story, _ = pid_reused()
    story.report(ref(1, uuid(1)), "failed", 1002)

    assert story.verdict().code == "match"


def test_a_number_taken_after_the_end_of_a_run_that_was_not_seen() -> None:
    """By the row's end_date alone, and no more than strong."""
    story = Airflow3().wait(60)
    ended = at(story.now_ns)
    story.wait(9).fork("scheduler", "sshd", pid=4711)
    story.report(ref(1, uuid(1)), "success", 4711, end_date=ended)

    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("pid-reused", "strong")


def test_an_older_process_with_that_number_has_not_reused_it() -> None:
    """Who was there before the row's start did not take the number from the attempt."""
    story = Airflow3().fork("scheduler", "sshd", pid=4711).wait(60)
    story.report(ref(1, uuid(1)), "running", 4711, start_date=at(story.now_ns))

    assert story.verdict().code == "never-seen"


def test_the_container_is_named_where_numbers_are_translated() -> None:
    """Short as its runtime shows it, with the pod; in full beside the process."""
    verdict = contained("running", "success").verdict()
    (runner,) = [process for process in verdict.processes if process.role == "runner"]

    assert verdict.code == "match-via-namespace"
    assert f"process 1002 here in container 3f2a3f2a3f2a of pod {POD}: one" in verdict.summary
    assert (runner.container, runner.pod_uid, runner.unit) == (CONTAINER, POD, None)


@pytest.mark.parametrize("state", ["running", "deferred", "up_for_reschedule", "up_for_retry"])
def test_a_number_given_out_again_in_the_container(state: str) -> None:
    """The row stands with 30, and in that very namespace 30 is another process by now."""
    story = contained(state).fork("scheduler", "cron", ns_pids=[1003, 30])
    confine(story, "cron", 2)

    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("pid-reused", "proved")
    assert "(process 1003 here in container 3f2a3f2a3f2a" in verdict.summary
    assert "started 2026-01-01T00:01:40.0" in verdict.summary
    assert "started 2026-01-01T00:02:40.1" in verdict.summary


def test_the_same_number_in_another_container_is_not_reused() -> None:
    """Every pod has a process 30."""
    story = contained("deferred").fork("scheduler", "other", ns_pids=[1003, 30])
    confine(story, "other", 3)

    assert story.verdict().code == "deferral"


def test_a_number_that_nobody_has_any_more_was_not_reused() -> None:
    """Who had it in between is gone as well."""
    story = contained("running").fork("scheduler", "cron", ns_pids=[1003, 30])
    confine(story, "cron", 2).exit("cron")

    assert story.verdict().code == "match-via-namespace"


def test_a_number_of_a_container_is_not_looked_for_among_ours() -> None:
    """The run was not seen; its number is of another namespace, where sshd is not."""
    story = contained("running", "success").wait(60)
    begun = at(story.now_ns)
    story.wait(60).fork("scheduler", "sshd", pid=44)
    story.report(ref(2, uuid(2)), "running", 44, hostname="pod-a", start_date=begun)

    verdict = story.verdict(2)

    assert verdict.code == "never-seen"
    assert "sshd" not in verdict.summary


@pytest.mark.parametrize("hostname", ["ip-10-0-0-7.ec2.internal", "pod-a.airflow.svc"])
def test_a_host_under_another_name_is_no_other_host(hostname: str) -> None:
    """The process seen here is the recorded one: number and title agree, so the name drifted."""
    story = three().exit("runner").report(ref(1, uuid(1)), "success", "runner", hostname=hostname)

    assert story.verdict().code == "match"


def test_a_restarted_pod_of_the_same_name_and_number() -> None:
    """airflow-worker-0 comes again and has a process 30 again: each try has its own."""
    story = contained("running", "up_for_retry").idle("worker")
    story.title("worker", f"airflow worker -- LocalExecutor: {uuid(2)}")
    story.fork("worker", "second", ns_pids=[1003, 30])
    confine(story, "second", 3).title("second", f"airflow worker -- {uuid(2)}")
    story.report(ref(2, uuid(2)), "running", 30, hostname="pod-a")

    assert [v.code for v in story.judge().verdicts] == ["retry", "match-via-namespace"]
    assert [[p.pid for p in v.processes if p.role == "runner"] for v in story.judge().verdicts] == [
        [1002],
        [1003],
    ]


def test_a_retry_in_pods_says_which_process_the_recorded_number_is() -> None:
    """All other sentences speak of our numbers, and the row of another."""
    story = contained("running", "up_for_retry").report(ref(2, uuid(2)), "running", 31)
    one = f"Recorded PID 30 is process 1002 here in container 3f2a3f2a3f2a of pod {POD}."

    assert story.verdict(1).code == "retry"
    assert one in story.verdict(1).summary


def test_a_row_between_two_pods_shows_the_number_of_the_one_before() -> None:
    """Try 2 is queued with number 30, which is 1002 here."""
    story = contained("running", "up_for_retry").report(ref(2, uuid(2)), "queued", 30)

    assert story.verdict(2).code == "stale-between-tries"


def test_a_source_that_does_not_know_numbers_accuses_no_other_host() -> None:
    """A process ran here, and may have the recorded number in a namespace that was not seen."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner")
    story.report(ref(1, uuid(1)), "running", 30, hostname="pod-a")

    (verdict,) = story.judge(structs.replace(FULL, has_identity=False)).verdicts

    assert verdict.code == "undetermined"
    assert "other numbers of process 1002: core does not tell" in verdict.unknowns


def test_another_host_is_where_to_look() -> None:
    """What is needed to go on is said."""
    story = Airflow3().report(ref(1, uuid(1)), "running", 4711, hostname="worker-2.example")

    assert story.verdict().unknowns == [
        "who was process 4711 on worker-2.example: pidtrail has to run there to tell"
    ]


def podded() -> Airflow2:
    """A 2.x supervisor, its runner and a shell in a container, numbered 1, 17 and 21 there."""
    story = Airflow2().start("1", 3).fork("runner1", "bash")
    inside = {"supervisor1": 1, "runner1": 17, "bash": 21}
    for index, event in enumerate(story.events):
        name = next((n for n in inside if event.key and event.key.pid == story.pids[n]), None)
        if isinstance(event, Fork) and name is not None:
            numbers = [story.pids[name], inside[name]]
            story.events[index] = structs.replace(event, ns_pids=numbers, pid_ns=99)
    return story


@pytest.mark.parametrize(
    ("pid", "code", "words"),
    [(1, "ancestor-recorded", "is the supervisor"), (21, "descendant-observed", "is a child")],
)
def test_another_level_in_the_container_is_not_another_host(
    pid: int, code: str, words: str
) -> None:
    """The row's host is a pod's name, and the number is there that of the runner's kin."""
    verdict = podded().report(ref(), "running", pid, hostname="sales-load-x7").verdict()

    assert (verdict.code, verdict.outcome, verdict.confidence) == (code, "explained", "strong")
    assert words in verdict.summary
    assert "here)" in verdict.summary


def test_a_number_of_nobody_in_the_container_is_weakly_another_host() -> None:
    """The near miss: the host may be the pod, whose name the kernel does not know."""
    verdict = podded().report(ref(), "running", 99, hostname="sales-load-x7").verdict()

    assert (verdict.code, verdict.confidence) == ("other-host", "weak")
    assert any("whether sales-load-x7 is what the container" in line for line in verdict.unknowns)


@pytest.mark.parametrize(
    ("hostname", "confidence"), [(None, "weak"), ("127.0.1.1", "weak"), ("worker-1", "strong")]
)
def test_a_row_that_names_no_host_of_its_own_is_weak(hostname: str | None, confidence: str) -> None:
    """Nobody knows on which host the number was one, or every host is called so."""
    verdict = Airflow3().report(ref(1, uuid(1)), "running", 4711, hostname=hostname).verdict()

    assert (verdict.code, verdict.confidence) == ("never-seen", confidence)
    assert bool(verdict.unknowns) is (confidence == "weak")
