"""What is concluded where a supervisor of 2.x ended before it forked, and what is only near it."""

from __future__ import annotations

import signal

import pytest
from msgspec import structs

from tests.unit.example_stories import FAILED
from tests.unit.story import FULL, Airflow2, at, ref
from tests.unit.test_rules_sudo import SUPERVISES


def supervised(name: str, story: Airflow2 | None = None) -> Airflow2:
    """A worker that has forked a supervisor, which names itself."""
    return (story or Airflow2()).fork("worker", name).title(name, SUPERVISES)


def ended(story: Airflow2, name: str, status: int = FAILED) -> Airflow2:
    """A supervisor that has ended, and a row that Airflow has failed for it."""
    story.exit(name, status)
    return story.report(ref(), "failed", None, end_date=at(story.now_ns))


def test_a_supervisor_that_could_not_load_the_file_is_an_aborted_start() -> None:
    """`reported that the task instance … finished with state failed, but … is queued`."""
    story = ended(supervised("supervisor1").report(ref(), "queued", None), "supervisor1")
    verdict = story.verdict()

    assert (verdict.code, verdict.outcome, verdict.confidence) == (
        "aborted-start",
        "explained",
        "proved",
    )
    assert verdict.summary.startswith(
        f"No user code of sales.load try 1 ran: its supervisor {story.pids['supervisor1']} exited "
        "with 1 after 0.0 s without having started a process; no PID is recorded, and the row "
        "says failed."
    )
    assert any("why its supervisor ended" in unknown for unknown in verdict.unknowns)


def test_a_supervisor_that_was_killed_before_it_forked_is_one_too() -> None:
    """The row had said running for it already, and still does."""
    story = supervised("supervisor1").report(ref(), "running", None)
    verdict = story.exit("supervisor1", signal.SIGKILL).verdict()

    assert verdict.code == "aborted-start"
    assert "was ended by SIGKILL after" in verdict.summary
    assert "the row says running" in verdict.summary


def test_a_supervisor_that_lives_may_fork_yet() -> None:
    story = supervised("supervisor1").report(ref(), "running", None)

    assert story.verdict().code != "aborted-start"


def test_a_supervisor_that_had_a_child_is_none() -> None:
    """Whatever that was."""
    story = supervised("supervisor1").fork("supervisor1", "child").exec("child", "sudo", "rm", "/x")
    story.exit("child")

    assert ended(story, "supervisor1").verdict().code == "undetermined"


def test_a_supervisor_that_exited_with_0_is_none() -> None:
    """It was refused, for another process has the attempt: `Task is not able to be run`."""
    story = supervised("supervisor1").report(ref(), "running", None)

    assert story.exit("supervisor1").verdict().code == "undetermined"


def test_a_supervisor_that_was_there_before_us_is_none() -> None:
    """What it forked until then is not known."""
    story = Airflow2().root("supervisor1", SUPERVISES)

    assert ended(story, "supervisor1").verdict().code == "undetermined"


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_a_row_that_says_otherwise_is_none(state: str) -> None:
    """Somebody set it by hand."""
    story = supervised("supervisor1").exit("supervisor1", FAILED).report(ref(), state, None)

    assert story.verdict().code != "aborted-start"


def test_a_recorded_pid_is_of_somebody() -> None:
    """Who was not seen."""
    story = supervised("supervisor1").exit("supervisor1", FAILED).report(ref(), "failed", 4711)

    assert story.verdict().code != "aborted-start"


def test_each_try_has_its_own_supervisor() -> None:
    """2.x names no try in the title: the ends of the tries tell."""
    story = supervised("first").exit("first", FAILED)
    story.report(ref(), "up_for_retry", None, end_date=at(story.now_ns))
    story = supervised("second", story.wait(60)).exit("second", FAILED)
    story.report(ref(2), "failed", None, end_date=at(story.now_ns))

    assert story.verdict(1).code == "retry"
    assert f"its supervisor {story.pids['second']} exited" in story.verdict(2).summary


def test_the_supervisor_of_the_next_try_is_not_of_this_one() -> None:
    """It began after this try's end."""
    story = Airflow2().report(ref(), "failed", None, end_date=at(100_100_000_000)).wait(5)

    assert supervised("later", story).exit("later", FAILED).verdict().code == "undetermined"


def test_who_misses_titles_or_short_lives_concludes_nothing() -> None:
    for blind in ("has_titles", "sees_short_lived"):
        story = ended(supervised("supervisor1"), "supervisor1")
        (verdict,) = story.judge(structs.replace(FULL, **{blind: False})).verdicts

        assert verdict.code != "aborted-start"
