"""Which processes belong to which attempt: roles, names, lineage."""

from __future__ import annotations

import pytest

from pidtrail.attribution import Attribution
from pidtrail.events import Exit, TaskRef
from tests.unit.story import LOG, Airflow2, Airflow3, Story, ref, uuid


def roles(story: Story, try_number: int | None = None) -> dict[str, str]:
    """Return the role of each process of an attempt, by its name in the story."""
    names = {pid: name for name, pid in story.pids.items()}
    return {names[p.pid or 0]: p.role for p in story.verdict(try_number).processes}


def test_the_chain_of_a_3x_task_is_told() -> None:
    """The busy worker is the supervisor, its child the runner, the rest operator children."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1)))
    story.fork("runner", "bash").exec("bash", "/bin/bash", "-c", "sleep 1").fork("bash", "sleep")

    assert roles(story) == {
        "worker": "supervisor",
        "runner": "runner",
        "bash": "operator_child",
        "sleep": "operator_child",
    }


def test_the_lineage_goes_up_to_the_scheduler() -> None:
    """The chain of a runner is its ancestors by birth with their roles at that time."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1))).idle("worker")

    runner = next(p for p in story.verdict().processes if p.role == "runner")

    assert [who.role for who in runner.chain] == ["runner", "supervisor", "scheduler"]
    assert [who.pid for who in runner.chain] == [
        story.pids["runner"],
        story.pids["worker"],
        story.pids["scheduler"],
    ]


def test_a_copied_title_does_not_make_a_runner() -> None:
    """multiprocessing copies the runner's title; the tree says who the runner is."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1)))
    story.fork("runner", "copy").title("copy", f"airflow worker -- {uuid(1)}").exit("copy")

    assert roles(story)["copy"] == "operator_child"


def test_one_worker_serves_many_and_none_is_mixed_up() -> None:
    """A worker supervises one attempt after the other; each runner keeps its own."""
    story = Airflow3()
    for number in range(1, 4):
        task = TaskRef("sales", "load", "manual__1", number, 1, uuid(number))
        story.title("worker", f"airflow worker -- LocalExecutor: {uuid(number)}")
        story.fork("worker", f"r{number}").title(f"r{number}", f"airflow worker -- {uuid(number)}")
        story.report(task, "running", f"r{number}").exit(f"r{number}").idle("worker")

    verdicts = story.judge().verdicts

    assert [(v.task.map_index, v.code) for v in verdicts] == [
        (1, "match"),
        (2, "match"),
        (3, "match"),
    ]
    for verdict in verdicts:
        runner = next(p for p in verdict.processes if p.role == "runner")
        assert runner.pid == story.pids[f"r{verdict.task.map_index}"]


def test_the_log_names_a_3x_task_without_any_database() -> None:
    """Title gives the UUID, the supervisor's open log all the names."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner")

    assert story.verdict().task == ref(1, uuid(1))


def test_a_2x_runner_takes_map_index_and_try_from_its_supervisor() -> None:
    """The runner's title has neither; the supervisor holds the log open."""
    story = Airflow2().start("1", 3).exit("runner1")

    task = story.verdict().task

    assert (task.dag_id, task.map_index, task.try_number) == ("sales", -1, 1)


def test_a_2x_runner_without_any_log_is_found_by_its_job() -> None:
    """The job id at the end of the title leads to the row, and so to the try."""
    story = Airflow2().start("1", 3, log=None).report(ref(2), "running", "runner1", job_id=3)
    story.exit("runner1")

    verdict = story.verdict()

    assert (verdict.task.try_number, verdict.code) == (2, "match")


def test_a_2x_runner_that_is_only_partly_named_joins_the_attempt_that_recorded_it() -> None:
    """Neither log nor job, but one attempt carries its pid."""
    story = Airflow2().start("1", 3, log=None).exit("runner1")
    story.report(ref(1), "failed", 4711).report(ref(2), "success", "runner1")

    assert [p.role for p in story.verdict(2).processes] == ["supervisor", "runner"]


def test_a_task_with_an_evil_name_is_kept_whole() -> None:
    """Quotes, newlines and escapes in a run id come through unchanged."""
    run_id = "manual__'\"\n\x1b[31m"
    story = Airflow3().title("worker", f"airflow worker -- LocalExecutor: {uuid(1)}")
    task = TaskRef("sales", "load", run_id, -1, 1, uuid(1))
    story.fork("worker", "runner").title("runner", f"airflow worker -- {uuid(1)}")
    story.report(task, "running", "runner").exit("runner")

    assert story.verdict().task.run_id == run_id


def labels(story: Story) -> dict[str, set[TaskRef | None]]:
    """Return which tasks the records of each process were labelled with while they came."""
    attribution = Attribution()
    names = {pid: name for name, pid in story.pids.items()}
    found: dict[str, set[TaskRef | None]] = {}
    for event in story.events:
        labelled = attribution.label(event)
        if labelled.pid is not None:
            found.setdefault(names[labelled.pid], set()).add(labelled.task)
    return found


def test_children_inherit_the_task_while_the_stream_goes_by() -> None:
    """A grandchild's records carry the attempt that its runner works for."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1)))
    story.fork("runner", "bash").fork("bash", "sleep").exit("sleep").exit("bash")

    assert labels(story)["sleep"] == {ref(1, uuid(1))}


def test_an_idle_worker_works_for_nobody() -> None:
    """After the idle title neither the worker nor what it forks is labelled."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner").idle("worker")
    story.fork("worker", "stranger").exit("stranger")

    assert labels(story)["stranger"] == {None}


def test_an_ended_process_is_forgotten() -> None:
    """Labels are bounded: they go with the reaping."""
    attribution = Attribution()
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).exit("runner").reap("runner", 1)
    story.idle("worker")
    for event in story.events:
        attribution.label(event)

    assert attribution.labels == {}


def test_the_log_of_a_later_attempt_is_not_taken_for_an_earlier_one() -> None:
    """A worker's second log belongs to its second task instance."""
    story = Airflow3().start("worker", "one", ref(1, uuid(1))).exit("one").idle("worker")
    story.start("worker", "two", ref(2, uuid(2))).exit("two")

    assert [v.task.try_number for v in story.judge().verdicts] == [1, 2]
    assert LOG.format(2).endswith("attempt=2.log")


def between_tries(state: str | None) -> Story:
    """Return a task whose row was read between its tries: next UUID already, old number still."""
    story = Airflow3().run("worker", "one", ref(1, uuid(1))).exit("one", 256).idle("worker")
    story.report(ref(1, uuid(2)), state, "one")
    story.title("worker", f"airflow worker -- LocalExecutor: {uuid(2)}")
    story.fork("worker", "two").title("two", f"airflow worker -- {uuid(2)}")
    return story.exit("two").report(ref(2, uuid(2)), "success", "two")


@pytest.mark.parametrize("state", ["up_for_retry", "restarting", None])
def test_the_uuid_of_the_next_try_is_not_taken_for_one_of_the_try_before(state: str | None) -> None:
    """A row between tries says (next UUID, old number): its runner belongs to the next try."""
    verdicts = between_tries(state).judge().verdicts

    assert [[p.pid for p in v.processes if p.role == "runner"] for v in verdicts] == [
        [1002],
        [1003],
    ]


@pytest.mark.parametrize("state", ["up_for_retry", "restarting", None])
def test_records_between_tries_carry_no_wrong_number(state: str | None) -> None:
    """While the stream goes by the next try's runner is never labelled as the one before."""
    tasks = labels(between_tries(state))["two"]

    assert {task.try_number for task in tasks if task is not None} <= {None, 2}


def test_the_uuid_in_a_running_row_stands_for_its_number() -> None:
    """Near miss: from queued on both belong together, and a title alone gives the try."""
    story = Airflow3().title("worker", f"airflow worker -- LocalExecutor: {uuid(2)}")
    story.fork("worker", "two").title("two", f"airflow worker -- {uuid(2)}")
    story.report(ref(2, uuid(2)), "running", "two")

    assert [v.task.try_number for v in story.judge().verdicts] == [2]


def test_the_plugin_alone_identifies_a_runner() -> None:
    """A process that shows nothing of itself is the runner of what it told, by all its names."""
    story = Story().root("python", "python", "-c", "pass").fork("python", "quiet")
    story.tell("quiet", ref(2, uuid(1), 3)).exit("quiet")

    verdict = story.verdict()

    (runner,) = verdict.processes
    assert verdict.task == ref(2, uuid(1), 3)
    assert (runner.role, runner.pid, runner.identified_by) == (
        "runner",
        story.pids["quiet"],
        "plugin",
    )


def test_the_plugin_is_better_than_a_title_and_a_log_better_than_both() -> None:
    """A 2.x title has neither map index nor try: the plugin has, and so has an open log."""
    told = Airflow2().start("1", 3, log=None).tell("runner1", ref(1)).exit("runner1")
    logged = Airflow2().start("1", 3, log=None).tell("runner1", ref(1))
    logged.log("runner1", LOG.format(1)).exit("runner1")

    for story, by in ((told, "plugin"), (logged, "log")):
        runner = next(p for p in story.verdict().processes if p.role == "runner")
        assert story.verdict().task == ref(1)
        assert runner.identified_by == by


def test_what_the_plugin_told_is_no_record_of_airflow() -> None:
    """The row says NULL for ever, whatever the process said: the verdict speaks of the row."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).tell("runner", ref(1, uuid(1)))
    story.exit("runner", 9).report(ref(1, uuid(1)), "failed", None)

    verdict = story.verdict()

    assert verdict.code == "died-unrecorded"
    assert [recorded.via for recorded in verdict.recorded] == ["db"]


def test_user_code_cannot_speak_for_another_attempt() -> None:
    """A child of a runner that claims to run something else stays an operator's child."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1))).fork("runner", "liar")
    story.tell("liar", ref(7, uuid(7))).exit("liar").exit("runner")

    assert [verdict.task for verdict in story.judge().verdicts] == [ref(1, uuid(1))]
    assert roles(story)["liar"] == "operator_child"


def test_user_code_in_the_runner_cannot_speak_for_another_attempt_either() -> None:
    """What the process shows of itself stands against it."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).tell("runner", ref(7, uuid(7)))
    story.exit("runner")

    assert [verdict.task for verdict in story.judge().verdicts] == [ref(1, uuid(1))]


def test_a_process_that_ran_several_attempts_is_given_to_each() -> None:
    """`airflow dags test` runs one task after the other in its own process, and tells of each."""
    story = Story().root("cli", "/usr/bin/airflow", "dags", "test", "sales")
    for index in range(3):
        story.tell("cli", ref(1, None, index)).tell("cli", ref(1, None, index), "success")

    verdicts = story.judge().verdicts

    assert [verdict.task.map_index for verdict in verdicts] == [0, 1, 2]
    assert {p.pid for verdict in verdicts for p in verdict.processes} == {story.pids["cli"]}


def test_a_claim_of_a_process_that_was_dead_by_then_is_nobody_s() -> None:
    """Its number may be another process's; neither has run what was told."""
    story = Story().root("python", "python").fork("python", "dead").exit("dead")
    story.tell("dead", ref(1))

    assert story.judge().verdicts == []


def test_the_label_of_a_process_is_what_it_told() -> None:
    """While the stream goes by, a process that told carries its task, and so do its children."""
    story = Story().root("python", "python").fork("python", "quiet").tell("quiet", ref(1))
    story.fork("quiet", "child").exit("child").exit("quiet")

    assert labels(story)["child"] == {ref(1)}


def test_a_lie_does_not_change_a_label() -> None:
    """Neither what runs in the runner nor what runs below it can give itself another task."""
    story = Airflow3().start("worker", "runner", ref(1, uuid(1))).fork("runner", "liar")
    story.tell("liar", ref(7, uuid(7))).tell("runner", ref(7, uuid(7)))
    story.exit("liar").exit("runner")

    attribution = Attribution()
    ends = [e for e in map(attribution.label, story.events) if isinstance(e, Exit)]
    assert [event.task for event in ends] == [ref(1, uuid(1))] * 2
