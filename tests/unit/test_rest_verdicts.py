"""What Airflow's API leaves out costs no verdict its reason, or the verdict says what lacks."""

from __future__ import annotations

import signal

import pytest
from msgspec import structs

from pidtrail.events import AirflowFact, Observed, TaskReported
from tests.unit.story import Airflow3, Story, ref, uuid

ROW, FAILED = ref(1, uuid(1)), 1 << 8
TEMPLATE = (
    "{{ ti.dag_id }}/{{ ti.run_id }}/{{ ti.task_id }}/{{ ti.map_index }}.{{ try_number }}.log"
)


def three() -> Airflow3:
    return Airflow3().run("worker", "runner", ROW)


def cleared() -> Story:
    story = three().exit("runner", FAILED).fact(ROW, "log", "clear").idle("worker")
    return story.run("worker", "second", ref(2, uuid(2)))


def unheard() -> Story:
    story = three().exit("runner", signal.SIGKILL).exit("worker", signal.SIGKILL).wait(300)
    return story.fact(ref(1), "log", "heartbeat timeout").report(ROW, "failed", "runner")


def deferred() -> Story:
    """The state was never seen: it lasted less long than a poll."""
    story = three().fact(ROW, "log", "deferred").exit("runner").idle("worker")
    return story.run("worker", "second", ROW).exit("second")


def poked() -> Story:
    story = three().fact(ROW, "task_reschedule", "up_for_reschedule").exit("runner").idle("worker")
    story.fact(ROW, "log", "up_for_reschedule")
    return story.run("worker", "second", ROW).exit("second")


def over_rest(story: Story) -> Story:
    """Leave of a story what the API tells of it."""
    kept = []
    for event in story.events:
        if isinstance(event, TaskReported):
            event = structs.replace(  # noqa: PLW2901 (it takes the other's place)
                event, origin="airflow-rest", via="rest", job_id=None, queued_by_job_id=None,
                next_method=None, last_heartbeat_at=None, updated_at=None,
            )  # fmt: skip
        elif isinstance(event, AirflowFact):
            if event.table != "log":
                continue
            event = structs.replace(event, origin="airflow-rest")  # noqa: PLW2901
        kept.append(event)
    story.events = kept
    return story


@pytest.mark.parametrize(
    ("story", "code"),
    [
        (cleared, "clear"),
        (unheard, "heartbeat-timeout"),
        (deferred, "deferral"),
        (poked, "reschedule"),
    ],
)
def test_the_api_reaches_what_the_database_reaches(story: object, code: str) -> None:
    """By the audit log, which both have."""
    assert callable(story)
    for told in (story(), over_rest(story())):
        first = told.judge().verdicts[0]
        assert (first.code, first.outcome) == (code, "explained")


def test_without_the_audit_log_a_poke_is_undetermined_and_what_lacks_is_said() -> None:
    story = over_rest(poked().report(ROW, "success", "runner"))
    story.events = [event for event in story.events if not isinstance(event, AirflowFact)]

    verdict = story.verdict()

    assert verdict.code == "undetermined"
    assert any("pokes of a sensor" in line for line in verdict.unknowns)


def test_the_database_is_not_said_to_lack_pokes() -> None:
    story = poked().report(ROW, "success", "runner")
    story.events = [event for event in story.events if not isinstance(event, AirflowFact)]

    assert not any("pokes of a sensor" in line for line in story.verdict().unknowns)


def named(template: str) -> Story:
    """A 3.x runner whose only name is that of its log, which is named by a template."""
    story = Airflow3().fact(ref(), "log_template", filename=template, folder="/srv/logs")
    fact = story.events.pop()
    story.events.append(structs.replace(fact, task=None))
    story.start("worker", "runner", ROW)
    path = "/srv/logs/sales/manual__1/load/-1.1.log"
    story.events = [
        structs.replace(event, log_path=path)
        if isinstance(event, Observed) and event.log_path
        else event
        for event in story.events
    ]
    return story.exit("runner")


def test_a_log_of_the_users_own_name_tells_the_attempt() -> None:
    (verdict,) = named(TEMPLATE).judge().verdicts

    assert verdict.task == ROW


def test_a_template_that_does_not_fit_tells_nothing() -> None:
    """Then the task instance is known by its UUID alone."""
    (verdict,) = named(TEMPLATE.replace("ti.run_id", "conf")).judge().verdicts

    assert (verdict.task.dag_id, verdict.task.ti_id) == (None, uuid(1))
