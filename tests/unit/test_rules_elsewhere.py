"""Rules about a number that means another thing here: the stories that come near them."""

from __future__ import annotations

import signal

import pytest

from tests.unit.example_stories import match_via_namespace, pid_reused, three
from tests.unit.story import Airflow3, at, ref, uuid


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
    """With a domain or without; an address cannot be told apart, and is not guessed at."""
    story = Airflow3().report(ref(1, uuid(1)), "running", 4711, hostname=hostname)

    assert story.verdict().code == "never-seen"


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
