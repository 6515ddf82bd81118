"""An index finds what a question needs, and nobody can tell from the answer."""

from __future__ import annotations

import sqlite3
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.asked import BATCH, Host
from pidtrail import store
from pidtrail.events import AirflowFact, Event
from pidtrail.index import Index, IndexWriter, TooMuch
from pidtrail.verdict.engine import judge_gathered, judge_stream
from pidtrail.verdict.lookup import Lookup, Uncertain
from pidtrail.verdict.model import Report
from pidtrail.verdict.question import Question
from tests.unit.crowd import STORIES, questions
from tests.unit.spoiled import WAYS, Way, spoiled_crowd
from tests.unit.story import FULL, Airflow3, header, ref, uuid

CHANCE = st.randoms(use_true_random=False)


def indexed(events: list[Event], size: int) -> Index:
    """Return the index of a recording in batches of so many."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in store.TABLES:
        db.execute(statement)
    writer = IndexWriter(db, header(FULL))
    for at in range(0, len(events), size):
        part = events[at : at + size]
        _, last_seq, plain, body = store.row_of(part)
        db.execute(store.INSERT, (part[0].seq, last_seq, plain, body))
        writer.write([part], plain=plain)
    return Index(db)


def answered(index: Index, question: Question) -> Report | None:
    """Return what the index says to a question, None if it cannot tell."""
    try:
        gathered = Lookup(question, index, header(FULL)).gathered()
    except (Uncertain, TooMuch):
        return None
    return judge_gathered(header(FULL), gathered, problems=[], question=question)


def compare(events: list[Event], question: Question, index: Index) -> bool:
    """Hold an answer against that of everything; return whether there was one."""
    report = answered(index, question)
    if report is None:
        return False
    whole = judge_stream(header(FULL), events, problems=[], question=question)

    assert report.verdicts == whole.verdicts
    assert report.unknowns == whole.unknowns
    return True


@settings(max_examples=200, deadline=None)
@given(CHANCE, st.sampled_from([1, 3, 20]), st.sampled_from([None, *WAYS]))
def test_the_answer_is_that_of_everything(chance: Random, size: int, way: Way | None) -> None:
    """About each task instance and number, whatever the order, and whatever is missing."""
    events = spoiled_crowd(chance, way)
    index = indexed(unique(events, size), size)
    asked = questions(events)
    for question in chance.sample(asked, min(10, len(asked))):
        compare(events, question, index)


def unique(events: list[Event], size: int) -> list[Event]:
    """Return records of which no two batches begin with the same number."""
    begun: set[int] = set()
    for at in range(0, len(events), size):
        assert events[at].seq not in begun
        begun.add(events[at].seq)
    return events


def test_plain_questions_need_nothing_else() -> None:
    """Each attempt of each story is found by its names, and by the numbers of its processes."""
    for code in sorted(STORIES):
        events = STORIES[code]()
        for question in questions(events):
            if question.dag_id is None and question.pid is None:
                continue
            found = compare(events, question, indexed(events, 3))

            # A command whose number names a DAG run that is not known may be of any.
            assert found or (code, question.pid) == ("unrecorded-test", 1002)


def test_two_names_of_airflow_are_for_everything_to_judge() -> None:
    """Names join nothing then; whose a process is, all that ran tells."""
    story = Airflow3().run("worker", "runner", ref(1, uuid(1)))
    for airflow in ("one", "other"):
        story.report(ref(1, uuid(1)), "running", "runner", airflow=airflow)

    assert answered(indexed(story.events, 3), Question("sales", "load")) is None


def test_a_task_that_ran_before_is_for_everything_to_judge() -> None:
    """Of a runner whose birth was not told, only its start tells that no other is the same."""
    story = Airflow3().root("runner", "/usr/bin/python3", "job")
    story.title("runner", f"airflow worker -- {uuid(1)}")
    story.report(ref(1, uuid(1)), "running", "runner")

    assert answered(indexed(story.events, 3), Question("sales", "load")) is None


def test_half_a_name_is_for_everything_to_judge() -> None:
    """A title that was cut may be any run's."""
    story = Airflow3().fork("worker", "cut").title("cut", "airflow task runner: sales load man")
    story.run("worker", "runner", ref(1, uuid(1)))
    index = indexed(story.events, 3)

    assert answered(index, Question("sales", "load", "manual__1")) is None
    assert compare(story.events, Question("sales"), index)


def test_what_others_started_is_not_read() -> None:
    """Else nothing would be gained: of a hundred runs with their commands, those of one."""
    host = Host()
    for number in range(100):
        host.run_task(number)
    index = indexed(host.events, BATCH)
    report = answered(index, Question("sales", "load", "run77"))

    assert report is not None
    assert [verdict.task.run_id for verdict in report.verdicts] == ["run77"]
    assert len(index.batches) <= 4
    assert len(index.words) < 100


def test_names_of_logs_that_were_told_too_late_leave_no_index() -> None:
    """A path that was passed over by then may be a task's own log."""
    story = Airflow3().fork("worker", "runner").log("runner", "/logs/sales/load/1.log")
    index = indexed(story.events, 3)
    template = {"folder": "/logs", "filename": "{{ ti.dag_id }}/{{ ti.task_id }}/{{ run_id }}.log"}
    fact = AirflowFact(99, story.now_ns, "airflow-config", table="log_template", detail=template)

    assert index.usable
    assert indexed([fact, *story.events], 3).usable
    assert not indexed([*story.events, fact], len(story.events)).usable
