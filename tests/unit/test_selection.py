"""What is left out of a long stream for a question changes no word of the answer."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from pidtrail.events import Event
from pidtrail.verdict.engine import judge_gathered, judge_stream
from pidtrail.verdict.model import Report
from pidtrail.verdict.question import Question
from pidtrail.verdict.selection import Selection
from tests.unit.crowd import questions, stormy
from tests.unit.spoiled import WAYS, Way, spoiled_crowd
from tests.unit.story import FULL, header

CHANCE = st.randoms(use_true_random=False)


def selected(events: list[Event], question: Question, size: int) -> tuple[Selection, Report]:
    """Return what is judged of batches of so many records."""
    parts = [events[at : at + size] for at in range(0, len(events), size)]
    selection = Selection(question, parts.__getitem__)
    for number, part in enumerate(parts):
        selection.take(number, part)
    gathered = selection.gathered()
    return selection, judge_gathered(header(FULL), gathered, problems=[], question=question)


@settings(max_examples=150, deadline=None)
@given(CHANCE, st.sampled_from([1, 3, 20]), st.sampled_from([None, *WAYS]))
def test_the_answer_is_that_of_everything(chance: Random, size: int, way: Way | None) -> None:
    """About each task instance and number, whatever the order, and whatever is missing."""
    events = spoiled_crowd(chance, way)
    events = events + chance.choices(events, k=3)
    asked = questions(events)
    for question in chance.sample(asked, min(10, len(asked))):
        _, report = selected(events, question, size)

        assert report == judge_stream(header(FULL), events, problems=[], question=question)


def test_the_bulk_of_others_is_left_out() -> None:
    """Else nothing would be gained."""
    events = stormy()
    selection, _ = selected(events, Question("another"), 1)

    assert len(selection.tree.nodes) == 3
