"""What the lab shows of its own children, a verdict tells of every run of a task."""

from __future__ import annotations

from tests.unit.test_rules import FAILED, ref, three, uuid


def test_a_verdict_tells_what_the_kernel_counted_and_that_the_pid_stayed() -> None:
    """From the exit record alone, so that it costs nothing while the task runs."""
    counters = {
        "migrations": 412,
        "voluntary_switches": 30,
        "involuntary_switches": 12,
        "major_faults": 5,
    }
    story = three().exit("runner", **counters).report(ref(1, uuid(1)), "success", "runner")

    summary = story.verdict().summary

    assert "moved between CPUs 412 times" in summary
    assert "was switched out 42 times" in summary
    assert "had 5 major faults" in summary
    assert summary.endswith("PID unchanged.")


def test_so_does_a_verdict_about_a_failed_run() -> None:
    story = three().exit("runner", FAILED, migrations=3).report(ref(1, uuid(1)), "failed", "runner")

    assert "moved between CPUs 3 times" in story.verdict().summary


def test_without_counters_it_claims_nothing() -> None:
    story = three().exit("runner").report(ref(1, uuid(1)), "success", "runner")

    assert "moved between" not in story.verdict().summary


def test_a_counter_that_the_source_has_not_is_said_to_be_unknown() -> None:
    """Of what was not counted nothing is claimed, neither none nor zero."""
    story = three().exit("runner", migrations=1).report(ref(1, uuid(1)), "success", "runner")

    summary = story.verdict().summary

    assert "moved between CPUs 1 time, " in summary
    assert "was switched out an unknown number of times" in summary
    assert "had an unknown number of major faults" in summary
