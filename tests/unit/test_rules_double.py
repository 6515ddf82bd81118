"""Rules about two starts of one attempt: the stories that come near them."""

from __future__ import annotations

import signal

import pytest

from pidtrail.events import TaskRef
from tests.unit.example_stories import (
    FAILED,
    aborted_start,
    concurrent_duplicate,
    heartbeat_timeout,
    late_event,
    orphan_reset,
    other_scheduler,
    refuse,
    three,
)
from tests.unit.story import Airflow2, Airflow3, Story, at, ref, uuid


def test_the_duplicate_that_ended_with_the_row_was_kept() -> None:
    """Whose result is in the row follows from its end_date, not from the pid in it."""
    story, _ = concurrent_duplicate()

    verdict = story.verdict()

    assert verdict.outcome == "conflict"
    assert f"when {story.pids['runner1']} exited with 0: its result was kept" in verdict.summary
    assert verdict.unknowns == []


def test_without_an_end_date_the_duplicate_says_so() -> None:
    """Whose result was kept is unknown, and named as such."""
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1").wait(4)
    story.start("2", 4).report(ref(), "running", "runner2").wait(3).exit("runner2")

    verdict = story.verdict()

    assert verdict.code == "concurrent-duplicate"
    assert any("result" in unknown for unknown in verdict.unknowns)


def test_a_moment_at_once_is_no_duplicate() -> None:
    """A process that winds down while the next poke begins is nothing to report."""
    story = three().report(ref(1, uuid(1)), "up_for_reschedule", "runner")
    story.worker("scheduler", "worker2").run("worker2", "second", ref(1, uuid(1))).wait(1)
    story.exit("runner").wait(5).exit("second")

    assert story.verdict().code == "reschedule"


def test_an_orphan_reset_has_its_reason_and_the_later_try_its_conflict() -> None:
    """The older try was reset; the later one ran beside its process."""
    story, _ = orphan_reset()

    assert [v.code for v in story.judge().verdicts] == ["orphan-reset", "concurrent-duplicate"]


def test_a_process_that_was_stopped_for_the_next_one_is_no_duplicate() -> None:
    """3.x refuses the old one's heartbeat, and its supervisor ends it within seconds."""
    story = other_scheduler(three().exit("scheduler", signal.SIGKILL))
    story.run("worker2", "second", ref(2, uuid(2))).wait(5)
    story.signal(signal.SIGTERM, "runner", "worker").exit("runner", signal.SIGTERM)
    story.wait(1).exit("second").report(ref(2, uuid(2)), "success", "second")

    assert [v.code for v in story.judge().verdicts] == ["orphan-reset", "match"]


def test_a_refused_start_beside_the_real_one() -> None:
    """Its supervisor's signal proves who killed it; the record is of the other process."""
    story, _ = aborted_start()

    verdict = story.verdict()

    assert verdict.outcome == "explained"
    assert f"process {story.pids['runner']} ran it" in verdict.summary


def test_a_refused_start_alone_did_not_die_unrecorded() -> None:
    """No process ran the attempt, and nothing will be recorded."""
    story = refuse(Airflow3(), "worker", "refused").report(ref(1, uuid(1)), "failed", None)

    assert story.verdict().code == "aborted-start"


def test_a_runner_killed_by_somebody_else_was_not_refused() -> None:
    """SIGKILL from a shell before the pid was recorded is a death."""
    story = Airflow3().root("shell", "/bin/bash").start("worker", "runner", ref(1, uuid(1)))
    story.signal(signal.SIGKILL, "runner", "shell").exit("runner", signal.SIGKILL)

    assert story.report(ref(1, uuid(1)), "failed", None).verdict().code == "died-unrecorded"


def test_a_runner_with_children_was_not_refused() -> None:
    """Who started a shell had got so far as to run user code."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).fork("runner", "bash")
    story.signal(signal.SIGKILL, "runner", "worker").exit("runner", signal.SIGKILL)

    assert story.report(ref(1, uuid(1)), "failed", None).verdict().code == "died-unrecorded"


def test_a_runner_that_was_on_record_was_not_refused() -> None:
    """A heartbeat refused later may end in SIGKILL too."""
    story = three().signal(signal.SIGKILL, "runner", "worker").exit("runner", signal.SIGKILL)

    assert story.report(ref(1, uuid(1)), "failed", "runner").verdict().code == "match"


def test_a_late_reaping_without_a_failure_is_a_reschedule() -> None:
    """Three of 23 runners of 3.x stay zombies for 5 s, and nothing comes of it."""
    story = late_event(5).run("worker", "second", ref(1, uuid(1))).wait(2).exit("second")
    story.report(ref(1, uuid(1)), "success", "second", end_date=at(story.now_ns))

    assert story.verdict().code == "reschedule"


def test_a_poke_that_fails_by_itself_is_no_stale_event() -> None:
    """The row failed at the end of the second poke: its own failure."""
    story = late_event(5).run("worker", "second", ref(1, uuid(1))).wait(2).exit("second", FAILED)
    story.report(ref(1, uuid(1)), "failed", "second", end_date=at(story.now_ns))

    assert story.verdict().code == "reschedule"


def test_a_stale_event_without_an_audit_row_is_strong_at_most() -> None:
    """The kernel's times alone make it likely."""
    task = ref(1, uuid(1))
    story = late_event(5).wait(0.4)
    failed_at = at(story.now_ns)
    story.run("worker", "second", task).wait(2).report(task, "failed", "second", end_date=failed_at)

    verdict = story.exit("second").verdict()

    assert (verdict.code, verdict.confidence) == ("stale-executor-event", "strong")


def test_a_stale_event_that_keeps_the_next_poke_from_starting() -> None:
    """The row was queued and failed; no second process ever came."""
    task = ref(1, uuid(1))
    story = late_event(5).wait(0.4).fact(task, "log", "state mismatch")
    story.report(task, "failed", "runner", end_date=at(story.now_ns))

    assert story.verdict().code == "stale-executor-event"


def test_a_stale_event_after_a_deferral_and_a_refused_start() -> None:
    """
    As seen on 3.3.2: a trigger that fires when the deferred process is reaped.

    The resumed process is started all the same; its start is refused, for the
    row has failed already.
    """
    task = ref(1, uuid(1))
    story = three().report(task, "deferred", "runner").exit("runner").wait(3.4)
    story.report(task, "queued", "runner").wait(1.6).reap("runner", 5_038_694_559).wait(0.1)
    failed_at = at(story.now_ns)
    story.fact(task, "log", "state mismatch").report(task, "failed", "runner", end_date=failed_at)
    refuse(story.idle("worker").worker("scheduler", "worker2"), "worker2", "refused")

    verdict = story.verdict()

    assert verdict.code == "stale-executor-event"
    assert f"{story.pids['refused']}, was refused and killed" in verdict.summary


def test_a_heartbeat_timeout_of_a_dead_process_says_when_it_died() -> None:
    """Supervisor and runner are gone, and the row runs on until Airflow notices."""
    story = three().exit("runner", signal.SIGKILL).exit("worker", signal.SIGKILL).wait(300)
    story.fact(ref(1), "log", "heartbeat timeout").report(ref(1, uuid(1)), "failed", "runner")

    verdict = story.verdict()

    assert verdict.code == "heartbeat-timeout"
    assert "was ended by SIGKILL, 300.0 s before" in verdict.summary


LIMIT = "Task did not emit heartbeat within time limit (300 seconds) and will be terminated."


@pytest.mark.parametrize(("waited", "code"), [(4.5, "retry"), (301, "heartbeat-timeout")])
def test_a_limit_that_had_not_passed_is_not_why(waited: float, code: str) -> None:
    """2.x says `heartbeat timeout` at once of a runner that was killed; it just failed."""
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1")
    story.exit("runner1", signal.SIGKILL).exit("supervisor1").wait(waited)
    story.fact(ref(), "log", "heartbeat timeout", extra=LIMIT)
    story.report(ref(), "up_for_retry", "runner1")
    story.start("2", 4, log=2).report(ref(2), "running", "runner2").exit("runner2")

    assert story.verdict(1).code == code


@pytest.mark.parametrize(("waited", "code"), [(2, "retry"), (7, "heartbeat-timeout")])
def test_a_short_limit_runs_from_the_last_heartbeat(waited: float, code: str) -> None:
    """The last heartbeat may be five seconds older than its sender's end, whatever the limit."""
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1")
    story.exit("runner1", signal.SIGKILL).exit("supervisor1", signal.SIGKILL).wait(waited)
    story.fact(ref(), "log", "heartbeat timeout", extra=LIMIT.replace("300", "8"))
    story.report(ref(), "up_for_retry", "runner1")
    story.start("2", 4, log=2).report(ref(2), "running", "runner2").exit("runner2")

    assert story.verdict(1).code == code


def test_a_heartbeat_timeout_of_a_later_try_is_not_this_ones() -> None:
    """The audit row names no try in 2.x: it counts for who ran when it was written."""
    story = three().exit("runner", FAILED).report(ref(1, uuid(1)), "up_for_retry", "runner")
    story.idle("worker").run("worker", "second", ref(2, uuid(2))).wait(300)
    story.fact(ref(None), "log", "heartbeat timeout")

    assert [v.code for v in story.judge().verdicts] == ["retry", "heartbeat-timeout"]


def test_a_scheduler_that_reset_without_an_audit_row_is_no_heartbeat_timeout() -> None:
    """The same lives and deaths without Airflow's own word are an orphan reset."""
    story, _ = heartbeat_timeout()
    story.events = [e for e in story.events if getattr(e, "event", None) != "heartbeat timeout"]

    assert story.verdict(1).code != "heartbeat-timeout"


def again(story: Airflow3, number: int) -> Airflow3:
    """Let another worker run the task instance again: a reset gives it another id, a broker not."""
    return story.run("worker2", "second", ref(number, uuid(number)))


def both_end(story: Story, row: TaskRef) -> Story:
    """Let both processes end in one moment, and the row be written in it."""
    end = at(story.now_ns)
    story.exit("runner").exit("second")
    return story.report(row, "success", "second", end_date=end)


def test_a_reset_tells_whose_result_was_kept() -> None:
    """The older try has the reason, and the answer as well."""
    story = other_scheduler(three().exit("scheduler", signal.SIGKILL))
    story.run("worker2", "second", ref(2, uuid(2))).wait(9).exit("runner").wait(9)
    end = at(story.now_ns)
    story.exit("second").report(ref(2, uuid(2)), "success", "second", end_date=end)

    verdict = story.verdict(1)

    assert verdict.code == "orphan-reset"
    assert f"when {story.pids['second']} exited with 0: its result was kept" in verdict.summary
    assert verdict.unknowns == []


def test_two_results_in_one_moment_are_undetermined() -> None:
    """2.x: each of the two may have written the row."""
    story = Airflow2().start("1", 3).report(ref(), "running", "runner1").wait(4)
    story.start("2", 4).report(ref(), "running", "runner2").wait(3)
    end = at(story.now_ns)
    story.exit("runner1").exit("runner2").report(ref(), "success", "runner2", end_date=end)

    verdict = story.verdict()

    assert "whose result was kept is undetermined" in verdict.summary
    assert any("result" in unknown for unknown in verdict.unknowns)


def test_a_runner_of_3_whose_id_is_the_rows_no_more_has_no_result() -> None:
    """The reset gave the row another id; whatever the old one tells is refused."""
    story = again(other_scheduler(three().exit("scheduler", signal.SIGKILL)), 2).wait(9)

    verdict = both_end(story, ref(2, uuid(2))).verdict(1)

    assert f"when {story.pids['second']} exited with 0: its result was kept" in verdict.summary


def test_a_runner_of_3_without_supervisor_has_no_result() -> None:
    """It cannot report: of two that end in one moment the other's was kept."""
    story = again(other_scheduler(three().exit("worker", signal.SIGKILL)), 1).wait(9)

    verdict = both_end(story, ref(1, uuid(1))).verdict()

    assert f"when {story.pids['second']} exited with 0: its result was kept" in verdict.summary


def test_a_runner_of_3_that_was_told_to_stop_has_no_result() -> None:
    """The server has refused its heartbeat, and refuses its result."""
    story = again(other_scheduler(three()), 1).wait(5)
    story.signal(signal.SIGTERM, "runner", "worker").wait(3)

    verdict = both_end(story, ref(1, uuid(1))).verdict()

    assert f"when {story.pids['second']} exited with 0: its result was kept" in verdict.summary


def test_two_of_3_that_both_can_report_are_undetermined() -> None:
    """One id, two living supervisors, and neither was refused anything."""
    story = again(other_scheduler(three()), 1).wait(9)

    assert "undetermined" in both_end(story, ref(1, uuid(1))).verdict().summary


def test_a_reset_says_who_was_told_to_stop() -> None:
    """By its own supervisor, whose heartbeat was refused."""
    story = again(other_scheduler(three().exit("scheduler", signal.SIGKILL)), 2).wait(5)
    story.signal(signal.SIGTERM, "runner", "worker").wait(3).exit("runner", signal.SIGTERM)

    told = f"{story.pids['runner']} was told to stop by its supervisor {story.pids['worker']}"
    assert told in story.verdict(1).summary


def test_the_end_of_a_reset_is_no_result() -> None:
    """3.x leaves that date in the row of the next try while it is queued."""
    story = other_scheduler(three().exit("scheduler", signal.SIGKILL))
    end = at(story.now_ns)
    story.report(ref(2, uuid(2)), "queued", "runner", end_date=end)
    story.run("worker2", "second", ref(2, uuid(2))).wait(9).exit("runner")

    assert "whose result was kept is undetermined" in story.verdict(1).summary


def archived(story: Airflow3) -> Airflow3:
    """Let 3.x put the first try into the history, with its end now."""
    columns = {"table": "task_instance_history", "end_date": at(story.now_ns)}
    return story.report(ref(1, uuid(1)), "failed", "runner", **columns)


def test_a_process_that_was_stopped_before_the_next_one_was_queued_was_reset() -> None:
    """Its heartbeat came between the reset and the first sign of the next try."""
    story = archived(other_scheduler(three().exit("scheduler", signal.SIGKILL)))
    story.signal(signal.SIGTERM, "runner", "worker").exit("runner", signal.SIGTERM).wait(1)
    story.run("worker2", "second", ref(2, uuid(2)))

    assert story.verdict(1).code == "orphan-reset"


def test_a_process_that_was_stopped_before_the_next_one_began_is_no_duplicate() -> None:
    """It winds down for five seconds, beside the next one; nobody hears its result."""
    story = archived(other_scheduler(three().exit("scheduler", signal.SIGKILL)))
    story.signal(signal.SIGTERM, "runner", "worker")
    story.run("worker2", "second", ref(2, uuid(2))).wait(5).exit("runner", signal.SIGKILL)
    story.wait(5).exit("second").report(ref(2, uuid(2)), "success", "second")

    assert [v.code for v in story.judge().verdicts] == ["orphan-reset", "match"]
    assert "was told to stop by its supervisor" in story.verdict(1).summary


def test_a_process_that_was_signalled_before_it_was_given_up_was_not_told_to_stop() -> None:
    """A shutdown that is passed on to a task which does not heed it: then it is reset, and real."""
    story = other_scheduler(three().exit("scheduler", signal.SIGKILL))
    archived(story.signal(signal.SIGTERM, "runner", "worker").wait(1))
    story.run("worker2", "second", ref(2, uuid(2))).wait(5).exit("runner")

    assert [v.code for v in story.judge().verdicts] == ["orphan-reset", "concurrent-duplicate"]


def test_a_process_that_failed_after_its_scheduler_had_died_was_retried() -> None:
    """The history is written while it winds down, and nobody told it to stop."""
    story = archived(other_scheduler(three().exit("scheduler", signal.SIGKILL)))
    story.wait(0.1).exit("runner", FAILED).wait(1)
    story.run("worker2", "second", ref(2, uuid(2)))

    assert story.verdict(1).code == "retry"


def test_a_dead_pid_in_a_running_row_is_told() -> None:
    """Between the death and the timeout the row was wrong."""
    story = three().exit("runner", signal.SIGKILL).exit("worker", signal.SIGKILL).wait(300)
    story.fact(ref(1), "log", "heartbeat timeout").report(ref(1, uuid(1)), "failed", "runner")

    assert "until then the row showed it as running" in story.verdict().summary


def test_a_row_that_had_changed_before_the_timeout_is_not_said_to_be_running() -> None:
    """It was queued again by then."""
    story = three().exit("runner", signal.SIGKILL).exit("worker", signal.SIGKILL).wait(299)
    story.report(ref(1, uuid(1)), "queued", "runner").wait(1)
    story.fact(ref(1), "log", "heartbeat timeout").report(ref(1, uuid(1)), "failed", "runner")

    assert story.verdict().code == "heartbeat-timeout"
    assert "showed it as running" not in story.verdict().summary


def test_two_tries_at_once_are_named_with_their_processes() -> None:
    """Which process ran which try."""
    story, _ = orphan_reset()

    old, new = story.pids["runner"], story.pids["second"]
    assert (
        f"Processes {old} (try 1) and {new} (try 2) ran sales.load at" in story.verdict(2).summary
    )


def given_up(state: str) -> Airflow3:
    """A story in which a runner outlives its supervisor, and its row says so; then a try 2."""
    story = three().exit("worker", signal.SIGKILL).wait(1)
    story.report(ref(1, uuid(1)), state, "runner").worker("scheduler", "worker2").wait(9)
    return story.run("worker2", "second", ref(2, uuid(2))).wait(5).exit("runner").exit("second")


@pytest.mark.parametrize(
    ("state", "code"),
    [("up_for_retry", "concurrent-duplicate"), ("failed", "clear"), ("restarting", "clear")],
)
def test_a_row_that_gives_the_attempt_up_is_no_orphan_reset(state: str, code: str) -> None:
    """A retry or a clear of a task whose process lives on is not what a scheduler resets."""
    assert given_up(state).verdict(1).code == code


def test_a_row_that_still_says_running_is_reset() -> None:
    """The near miss: nothing but the supervisor's death was between the two."""
    assert given_up("running").verdict(1).code == "orphan-reset"


def unheard(lived_s: float, state: str | None = None) -> Airflow3:
    """Worker and scheduler are killed, the runner ends by itself, a new scheduler runs it again."""
    story = three()
    for name in ("scheduler", "worker"):
        story.signal(signal.SIGKILL, name, None).exit(name, signal.SIGKILL)
    story.wait(lived_s).exit("runner", 126 << 8)
    if state is not None:
        story.report(ref(1, uuid(1)), state, "runner")
    return other_scheduler(story).run("worker2", "second", ref(2, uuid(2))).exit("second")


def test_a_process_that_ended_unheard_after_its_scheduler_was_reset() -> None:
    """It did not go down with its scheduler: it went on for 20 s, and could not report."""
    verdict = unheard(20).verdict(1)

    assert (verdict.code, verdict.confidence) == ("orphan-reset", "strong")
    assert "lived on for 20.0 s, exited with 126 unheard" in verdict.summary


def test_a_process_that_ended_at_once_went_down_with_its_scheduler() -> None:
    """The near miss: within five seconds all were gone."""
    assert unheard(1).verdict(1).code == "worker-restart"


def test_a_process_whose_failure_was_heard_was_not_reset() -> None:
    """The near miss: the row waited for a retry before the new scheduler began."""
    assert unheard(20, "up_for_retry").verdict(1).code == "retry"


def test_a_worker_that_is_stopped_after_its_task_has_ended_explains_it() -> None:
    """Asked to end, it ends its runner first and itself ten seconds later."""
    story = three().signal(signal.SIGTERM, "scheduler", None)
    story.signal(signal.SIGTERM, "runner", "worker").exit("runner", signal.SIGTERM)
    story.exit("worker").wait(10).exit("scheduler")
    other_scheduler(story).run("worker2", "second", ref(2, uuid(2))).exit("second")

    assert story.verdict(1).code == "worker-restart"


def taken_for_dead(job: int, *, stopped: bool = False) -> Airflow3:
    """A scheduler that lives is marked failed by another one, which runs its task again."""
    story = other_scheduler(Airflow3()).start("worker", "runner", ref(1, uuid(1)))
    story.report(ref(1, uuid(1)), "running", "runner", queued_by_job_id=1).wait(40)
    story.job(job, "failed")
    archived(story)
    if stopped:
        story.signal(signal.SIGTERM, "runner", "worker").exit("runner", signal.SIGTERM)
    story.wait(1).run("worker2", "second", ref(2, uuid(2))).wait(3)
    if not stopped:
        story.exit("runner")
    return story.exit("second")


@pytest.mark.parametrize("stopped", [True, False])
def test_a_scheduler_that_was_taken_for_dead_explains_a_reset(*, stopped: bool) -> None:
    """It was slow, not dead: its job row says that another scheduler gave it up."""
    verdict = taken_for_dead(1, stopped=stopped).verdict(1)

    assert verdict.code == "orphan-reset"
    assert "was taken for dead (job 1 marked failed)" in verdict.summary


def test_the_job_of_another_scheduler_explains_no_reset() -> None:
    """The near miss: the one that failed had not queued this attempt."""
    assert taken_for_dead(2).verdict(1).code == "concurrent-duplicate"
