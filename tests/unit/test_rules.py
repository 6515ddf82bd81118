"""The verdict rules: for each a story that fires it, and a near miss that does not."""

from __future__ import annotations

import inspect
import signal

import pytest
from msgspec import structs

from pidtrail.errors import PidtrailError
from pidtrail.events import Fidelity, Observed, TaskReported
from pidtrail.verdict.meaning import meaning
from pidtrail.verdict.rules import RULES, code_of
from tests.unit.story import FULL, LOG, Airflow2, Airflow3, Story, at, ref, uuid

FAILED = 1 << 8


def three(try_number: int = 1) -> Airflow3:
    """A 3.x story in which the worker runs one attempt that was recorded."""
    return Airflow3().run("worker", "runner", ref(try_number, uuid(try_number)))


def test_a_recorded_runner_is_a_match() -> None:
    """The recorded pid is the process that ran: no mismatch, proved."""
    story = three().exit("runner", migrations=7).report(ref(1, uuid(1)), "success", "runner")

    verdict = story.verdict()

    assert (verdict.code, verdict.outcome, verdict.confidence) == ("match", "match", "proved")
    assert "moved between CPUs 7 times" in verdict.summary
    assert verdict.pid_changed_in_kernel is False


def test_a_number_that_is_not_the_runners_is_no_match() -> None:
    """The same story with another number on record is undetermined, and says what is missing."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1)))
    story.exit("runner").report(ref(1, uuid(1)), "success", 4711)

    verdict = story.verdict()

    assert verdict.code == "undetermined"
    assert any("4711" in unknown for unknown in verdict.unknowns)


def retried() -> Airflow3:
    """A 3.x story: the first try fails, the second runs."""
    story = three().report(ref(1, uuid(1)), "up_for_retry", "runner").exit("runner", FAILED)
    story.idle("worker").run("worker", "second", ref(2, uuid(2)))
    story.report(ref(1, uuid(1)), "failed", "runner", table="task_instance_history")
    return story.exit("second").report(ref(2, uuid(2)), "success", "second")


def test_a_failed_attempt_with_a_later_one_is_a_retry() -> None:
    """The first try was superseded by a new process; the second is a match."""
    story = retried()

    assert ["retry", "match"] == [verdict.code for verdict in story.judge().verdicts]
    assert story.pids["runner"] != story.pids["second"]


def test_a_failed_attempt_without_a_later_one_is_no_retry() -> None:
    """As long as nothing superseded it, the record is right."""
    story = three().exit("runner", FAILED).report(ref(1, uuid(1)), "failed", "runner")

    assert story.verdict().code == "match"


def test_an_attempt_that_only_waits_has_superseded_nothing() -> None:
    """A queued second try is no second process yet: the first is a match, the second stale."""
    story = three().exit("runner", FAILED).report(ref(1, uuid(1)), "up_for_retry", "runner")
    story.report(ref(2, uuid(2)), "queued", "runner")

    assert [v.code for v in story.judge().verdicts] == ["match", "stale-between-tries"]


def test_a_queued_attempt_that_shows_an_unknown_pid_is_not_called_stale() -> None:
    """Only a pid that is known to be an earlier runner's makes it stale."""
    story = three().exit("runner", FAILED).report(ref(1, uuid(1)), "up_for_retry", "runner")
    story.report(ref(2, uuid(2)), "queued", 4711)

    assert story.verdict(2).code == "undetermined"


def test_a_cleared_attempt_is_a_clear_and_not_a_retry() -> None:
    """A success that runs again was cleared by somebody."""
    story = three().report(ref(1, uuid(1)), "success", "runner").exit("runner").idle("worker")
    story.run("worker", "second", ref(2, uuid(2)))

    assert story.verdict(1).code == "clear"


def test_a_clear_of_a_running_attempt_shows_as_restarting() -> None:
    """State restarting is a clear as well, although the runner was killed."""
    story = three().report(ref(1, uuid(1)), "restarting", "runner")
    story.signal(signal.SIGTERM, "runner", "worker").exit("runner", signal.SIGTERM)
    story.idle("worker").run("worker", "second", ref(2, uuid(2)))

    assert story.verdict(1).code == "clear"


def test_an_audit_row_from_before_the_attempt_clears_nothing() -> None:
    """A clear that was logged before the attempt began does not explain its successor."""
    story = Airflow3().fact(ref(1), "log", "clear")
    story.run("worker", "runner", ref(1, uuid(1))).exit("runner", FAILED)
    story.report(ref(1, uuid(1)), "up_for_retry", "runner").idle("worker")
    story.run("worker", "second", ref(2, uuid(2)))

    assert story.verdict(1).code == "retry"


def poked() -> Airflow3:
    """A 3.x sensor that pokes twice under one try number."""
    story = three().report(ref(1, uuid(1)), "up_for_reschedule", "runner").exit("runner")
    story.idle("worker").report(ref(1, uuid(1)), "scheduled", "runner")
    return story.run("worker", "second", ref(1, uuid(1)))


def test_pokes_of_a_sensor_are_a_reschedule() -> None:
    """Two processes of one try with up_for_reschedule between them."""
    story = poked().exit("second").report(ref(1, uuid(1)), "success", "second")

    verdict = story.verdict()

    assert verdict.code == "reschedule"
    assert [p.pid for p in verdict.processes if p.role == "runner"] == [
        story.pids["runner"],
        story.pids["second"],
    ]


def test_a_sensor_that_pokes_once_is_a_match() -> None:
    """One poke that succeeded at once needs no explanation."""
    story = three().exit("runner").report(ref(1, uuid(1)), "success", "runner")
    story.fact(ref(1), "task_reschedule")

    assert story.verdict().code == "match"


def test_a_resumed_task_is_a_deferral() -> None:
    """Two processes of one try with the deferral between them."""
    story = three().report(ref(1, uuid(1)), "deferred", "runner").exit("runner").idle("worker")
    story.run("worker", "second", ref(1, uuid(1))).exit("second")

    assert story.verdict().code == "deferral"


def test_a_deferred_task_has_no_process_now() -> None:
    """While it waits the row shows a process that has ended, and the verdict says so."""
    story = three().report(ref(1, uuid(1)), "deferred", "runner").exit("runner")

    verdict = story.verdict()

    assert verdict.code == "deferral"
    assert "has ended" in verdict.summary


def test_two_processes_without_a_reason_are_undetermined() -> None:
    """Several processes of one try that no row explains are not explained away."""
    story = three().exit("runner").idle("worker").run("worker", "second", ref(1, uuid(1)))
    story.exit("second").report(ref(1, uuid(1)), "success", "runner")

    assert story.verdict().code == "undetermined"


def test_a_runner_that_dies_before_its_pid_is_written_died_unrecorded() -> None:
    """2.x sets pid NULL and writes it later; killed in between, it stays NULL."""
    story = Airflow2().start("1", 3).report(ref(), "running", None)
    story.exit("runner1", signal.SIGKILL).report(ref(), "failed", None)

    verdict = story.verdict()

    assert verdict.code == "died-unrecorded"
    assert [p.pid for p in verdict.processes if p.role == "runner"] == [story.pids["runner1"]]


def test_a_runner_that_lives_is_not_recorded_yet() -> None:
    """The same window while the runner lives: the pid will come."""
    story = Airflow2().start("1", 3).report(ref(), "running", None)

    assert story.verdict().code == "not-recorded-yet"


def test_a_pid_that_came_late_is_a_match() -> None:
    """Once it is written the window is forgotten."""
    story = Airflow2().start("1", 3).report(ref(), "running", None)
    story.report(ref(), "running", "runner1").exit("runner1")

    assert story.verdict().code == "match"


def test_a_recorded_supervisor_is_an_ancestor() -> None:
    """The number on record is the supervisor above the runner: two processes, none changed."""
    story = Airflow2().start("1", 3).report(ref(), "running", "supervisor1").exit("runner1")

    verdict = story.verdict()

    assert verdict.code == "ancestor-recorded"
    assert "supervisor" in verdict.summary


def test_a_recorded_child_is_no_ancestor() -> None:
    """A process below the runner is not above it."""
    story = Airflow2().start("1", 3).fork("runner1", "bash").report(ref(), "running", "bash")
    story.exit("bash").exit("runner1")

    assert story.verdict().code == "descendant-observed"


def test_a_runner_outlives_its_scheduler() -> None:
    """The scheduler is killed, worker and runner live on, the record stays right."""
    story = three().signal(signal.SIGKILL, "scheduler", None).exit("scheduler", signal.SIGKILL)
    story.wait(20).exit("runner").report(ref(1, uuid(1)), "success", "runner")

    assert story.verdict().code == "orphaned-still-running"


def test_a_runner_that_ends_with_its_supervisor_is_no_orphan() -> None:
    """Everything stopped within a moment is an orderly end."""
    story = three().exit("scheduler").exit("worker").exit("runner", signal.SIGTERM)

    assert story.verdict().code == "match"


def test_a_reset_while_the_process_lives_is_an_orphan_reset() -> None:
    """A restarted scheduler runs the task again although its first process still lives."""
    story = three().exit("scheduler", signal.SIGKILL).wait(6)
    story.root("other", "/usr/bin/airflow", "scheduler").worker("other", "worker2")
    story.run("worker2", "second", ref(2, uuid(2))).wait(9).exit("runner").exit("second")

    assert story.verdict(1).code == "orphan-reset"


def test_a_process_that_went_down_with_its_worker_is_a_worker_restart() -> None:
    """All of the old service died together; the new one ran the next attempt."""
    story = three()
    for name in ("runner", "worker", "scheduler"):
        story.exit(name, signal.SIGKILL)
    story.wait(6).root("other", "/usr/bin/airflow", "scheduler").worker("other", "worker2")
    story.run("worker2", "second", ref(2, uuid(2))).exit("second")

    assert story.verdict(1).code == "worker-restart"


def test_a_retry_under_the_same_scheduler_is_no_worker_restart() -> None:
    """A supervisor that dies with its runner while the scheduler goes on is followed by a retry."""
    story = three().exit("runner", signal.SIGKILL).exit("worker", signal.SIGKILL)
    story.report(ref(1, uuid(1)), "up_for_retry", "runner").worker("scheduler", "worker2")
    story.run("worker2", "second", ref(2, uuid(2))).exit("second")

    assert story.verdict(1).code == "retry"


def test_a_recorded_pid_without_any_process_was_never_seen() -> None:
    """A row that says running here, and nothing ran here."""
    story = Airflow3().report(ref(1, uuid(1)), "running", 4711)

    verdict = story.verdict()

    assert (verdict.code, verdict.outcome) == ("never-seen", "conflict")


def test_a_process_without_any_row_is_undetermined() -> None:
    """Without Airflow's word there is nothing to compare, and the verdict says why."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner")

    verdict = story.judge(problems=["cannot reach the database"]).verdicts[0]

    assert (verdict.code, verdict.outcome) == ("undetermined", "undetermined")
    assert "cannot reach the database" in verdict.unknowns


def test_a_loss_during_the_attempt_weakens_the_verdict() -> None:
    """Confidence is no higher than the evidence bears, and the loss is named."""
    story = three().lose(12).exit("runner")

    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("match", "weak")
    assert any("12 records lost" in unknown for unknown in verdict.unknowns)


def test_a_loss_before_the_attempt_changes_nothing() -> None:
    """A gap that was over when the attempt began does not concern it."""
    story = Airflow3().lose(12).wait(5).run("worker", "runner", ref(1, uuid(1))).exit("runner")

    assert story.verdict().confidence == "proved"


def test_a_runner_known_by_lineage_alone_is_not_proved() -> None:
    """A runner that was killed before it named itself is found, with less confidence."""
    story = Airflow3().title("worker", f"airflow worker -- LocalExecutor: {uuid(1)}")
    story.fork("worker", "runner").report(ref(1, uuid(1)), "running", "runner")
    story.exit("runner", signal.SIGKILL)

    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("match", "strong")
    assert [p.identified_by for p in verdict.processes if p.role == "runner"] == ["lineage"]


def test_a_changed_number_would_be_told() -> None:
    """The answer to the whole question is looked for in the records, not assumed."""
    story = three()
    story.pids["runner"] = 9999
    story.title("runner", "airflow worker -- still me").exit("runner")

    assert story.judge().verdicts[0].pid_changed_in_kernel is True


def test_two_numbers_that_are_seen_in_turn_are_no_changed_number() -> None:
    """The birth of one of two was lost, both start in one nanosecond, and both go on."""
    story = three().title("runner", "airflow worker -- first")
    story.pids["other"], story.starts["other"] = 9999, story.starts["runner"]
    story.title("other", "airflow worker -- second").title("runner", "airflow worker -- again")

    assert story.judge().verdicts[0].pid_changed_in_kernel is False


def test_two_forks_in_one_nanosecond_are_no_changed_number() -> None:
    """Each has a birth of its own; clocks of some machines tick in hundreds of nanoseconds."""
    story = three()
    story.fork("worker", "twin").exit("twin").exit("runner")
    same = story.starts["runner"]
    story.events = [
        structs.replace(event, start_ns=same) if event.pid == story.pids["twin"] else event
        for event in story.events
    ]

    assert story.judge().verdicts[0].pid_changed_in_kernel is False


def lossy_pokes(*, seen_alive: bool) -> Airflow3:
    """The end of a first runner falls into a loss, and is found by the look after it."""
    story = three()
    pid, ticks, start_ns = story.identity("runner")
    story.wait(1).idle("worker").wait(2)
    story.lose(5)
    story.run("worker", "second", ref(1, uuid(1))).wait(3)
    if seen_alive:
        story.log("runner", LOG.format(1))
    story.wait(3)
    seq, now_ns, _ = story.next()
    story.events.append(Observed(seq, now_ns, "core", pid, ticks, start_ns, dead=True))
    return story.wait(1).exit("second").report(ref(1, uuid(1)), "success", "second")


def test_an_end_that_a_loss_may_have_held_makes_no_duplicate() -> None:
    """It may have been before the next process began, so nothing says that both were there."""
    verdict = lossy_pokes(seen_alive=False).verdict()

    assert (verdict.code, verdict.confidence) == ("match", "weak")


def test_who_was_seen_alive_after_the_loss_is_a_duplicate() -> None:
    """The loss did not hold its end then."""
    verdict = lossy_pokes(seen_alive=True).verdict()

    assert (verdict.code, verdict.confidence) == ("concurrent-duplicate", "weak")


def test_an_end_that_a_loss_may_have_held_makes_no_orphan() -> None:
    """It may have been before that of its supervisor."""
    story = three()
    story.lose(5).exit("worker", signal.SIGKILL).wait(3)
    pid, ticks, start_ns = story.identity("runner")
    seq, now_ns, _ = story.next()
    story.events.append(Observed(seq, now_ns, "core", pid, ticks, start_ns, dead=True))

    assert story.verdict().code == "match"


@pytest.mark.parametrize(
    "fidelity",
    [
        structs.replace(FULL, sees_short_lived=False),
        structs.replace(FULL, has_titles=False, has_argv=False),
    ],
)
def test_a_source_that_misses_some_has_not_never_seen_one(fidelity: Fidelity) -> None:
    """`procfs` misses short lives, `connector` what they called themselves."""
    story = Airflow3().report(ref(1, uuid(1)), "running", 4711)
    verdict = story.judge(fidelity).verdicts[0]

    assert verdict.code == "undetermined"
    assert "may have missed it" in verdict.summary


def test_a_loss_leaves_it_open_whether_a_process_was_there() -> None:
    """Its birth may be among what was lost."""
    story = Airflow3().wait(2).report(ref(1, uuid(1)), "running", 4711, start_date=None).lose(5)

    assert story.verdict().code == "undetermined"


def test_a_loss_before_the_attempt_hides_no_process_of_it() -> None:
    """The row says when it began."""
    story = Airflow3().lose(5).wait(5)
    story.report(ref(1, uuid(1)), "running", 4711, start_date=at(story.now_ns))

    assert story.verdict().code == "never-seen"


@pytest.mark.parametrize("rule", RULES, ids=code_of)
def test_every_rule_says_what_it_concludes_needs_and_cannot_tell(rule: object) -> None:
    """What `explain --code` prints has three parts."""
    text = inspect.getdoc(rule) or ""

    for part in ("Concludes:", "Needs:", "Cannot tell:"):
        assert part in text


@pytest.mark.parametrize("rule", RULES, ids=code_of)
def test_every_code_can_be_explained(rule: object) -> None:
    """The code of a rule leads to its docstring."""
    code = code_of(rule)  # type: ignore[arg-type]

    assert meaning(code).text.startswith(code)


def test_a_code_that_is_none_is_refused_with_those_that_are() -> None:
    """One line that lists the codes."""
    with pytest.raises(PidtrailError, match="match"):
        meaning("migration")


def test_a_story_without_airflow_has_no_verdicts() -> None:
    """Other processes are nobody's task."""
    story = Story().root("shell", "/bin/bash").fork("shell", "child").exit("child")

    assert story.judge().verdicts == []


def test_a_failure_that_the_process_told_makes_a_retry_without_any_row() -> None:
    """In 3.x a failed runner exits with 0: the plugin's word is proof, its success none."""
    for state, code in (("up_for_retry", "retry"), (None, "retry"), ("success", "undetermined")):
        story = Airflow3().start("worker", "runner", ref(1, uuid(1)))
        story.tell("runner", ref(1, uuid(1)), state).exit("runner").idle("worker")
        story.start("worker", "later", ref(2, uuid(2))).exit("later")

        assert story.verdict(1).code == code


def test_a_retry_under_the_number_of_the_try_before_says_so() -> None:
    """Numbers wrap: the same PID is not the same process."""
    story = three().exit("runner", FAILED).report(ref(1, uuid(1)), "up_for_retry", "runner")
    story.idle("worker").run("worker", "second", ref(2, uuid(2)), story.pids["runner"])

    verdict = story.exit("second").verdict(1)

    assert verdict.code == "retry"
    assert f"gave the same PID {story.pids['runner']}" in verdict.summary


def test_the_audit_row_says_who_cleared() -> None:
    """A person is named where Airflow names one."""
    story = three().exit("runner").report(ref(1, uuid(1)), "success", "runner").idle("worker")
    story.fact(ref(None), "log", "post_clear_task_instances", owner="eve").wait(1)

    verdict = story.run("worker", "second", ref(2, uuid(2))).verdict(1)

    assert "was cleared by user eve (audit row `post_clear_task_instances`)" in verdict.summary


def test_one_poke_so_far_is_one_process() -> None:
    """A sensor that waits for its second poke."""
    verdict = (
        three().exit("runner").report(ref(1, uuid(1)), "up_for_reschedule", "runner").verdict(1)
    )

    assert "ran as one process so far, a poke of a rescheduling sensor" in verdict.summary


def test_an_unexplained_process_before_the_recorded_one_is_told() -> None:
    """Two processes of one try, the last of them on record, and no row says why."""
    story = three().exit("runner").idle("worker").run("worker", "second", ref(1, uuid(1)))
    story.events = [e for e in story.events if not (isinstance(e, TaskReported))]
    story.exit("second").report(ref(1, uuid(1)), "success", "second")

    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("match", "strong")
    assert f"Before it process {story.pids['runner']} ran the same try" in verdict.summary
    assert verdict.unknowns == ["why the attempt had several processes: no row tells"]


def test_the_runner_of_another_task_on_record_is_named() -> None:
    """Whose number it is was seen: it is not asked who that was."""
    other = structs.replace(ref(1, uuid(9)), task_id="evil")
    story = three().worker("scheduler", "worker2")
    story.title("worker2", f"airflow worker -- LocalExecutor: {uuid(9)}").fork("worker2", "second")
    story.title("second", f"airflow worker -- {uuid(9)}").report(other, "running", "second")
    story.report(ref(1, uuid(1)), "running", "second")
    found = [v for v in story.judge().verdicts if v.task.task_id == "load"]

    assert found[0].code == "undetermined"
    assert "(which ran sales.evil try 1)" in found[0].summary


def test_an_idle_worker_on_record_is_named() -> None:
    """A process of Airflow's that serves no task."""
    story = three().worker("scheduler", "worker2").report(ref(1, uuid(1)), "running", "worker2")

    assert "(a executor worker)" not in story.verdict().summary
    assert "(an executor worker)" in story.verdict().summary


def test_a_title_that_is_cut_hides_whose_runner_it_is() -> None:
    """Of `airflow task runner: …` the kernel keeps 15 characters: it may be this attempt's."""
    story = Airflow2().fork("worker", "supervisor").fork("supervisor", "runner")
    story.title("supervisor", "airflow task su").title("runner", "airflow task ru")
    verdict = story.report(ref(), "running", "runner").verdict()

    assert verdict.code == "undetermined"
    assert "its title is cut" in verdict.summary


def begun(*, log: bool = True) -> Airflow2:
    """A 2.x supervisor that has said `running`, and not forked its runner."""
    words = "['airflow', 'tasks', 'run', 'sales', 'load', 'manual__1', '--local']"
    story = Airflow2().fork("worker", "supervisor")
    story.title("supervisor", f"airflow task supervisor: {words}")
    if log:
        story.log("supervisor", LOG.format(1))
    return story.report(ref(), "running", None)


def test_a_supervisor_that_has_not_forked_yet_has_no_pid_to_record() -> None:
    """The row says running, with NULL, before there is a process."""
    story = begun()

    verdict = story.verdict()

    assert (verdict.code, verdict.confidence) == ("not-recorded-yet", "strong")
    assert f"Supervisor {story.pids['supervisor']} has begun sales.load try 1" in verdict.summary


@pytest.mark.parametrize("story", [begun(log=False), begun().exit("supervisor")])
def test_a_supervisor_that_is_gone_or_shows_no_try_has_begun_nothing(story: Story) -> None:
    """The near misses: it may be of another try, or will fork no more."""
    assert story.verdict().code == "undetermined"


def test_a_supervisor_of_another_try_has_not_begun_this_one() -> None:
    """Its open log names try 1, and the row is of try 2."""
    story = begun().report(ref(2), "running", None)

    assert story.verdict(2).code == "undetermined"
