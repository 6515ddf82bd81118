"""Who asks about one task instance hears of it what he would hear among all others."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from pidtrail.verdict.engine import judge_stream
from pidtrail.verdict.question import Question
from tests.unit.crowd import crowd, picked, questions
from tests.unit.story import FULL, header

CHANCE = st.randoms(use_true_random=False)


@settings(max_examples=40, deadline=None)
@given(CHANCE)
def test_an_answer_is_what_all_answers_have_of_it(chance: Random) -> None:
    """For each task instance and each number of a history of several runs at once."""
    events = crowd(chance)
    asked = questions(events)
    for question in chance.sample(asked, min(12, len(asked))):
        report = judge_stream(header(FULL), events, problems=[], question=question)

        assert report.verdicts == picked(header(FULL), events, question)


def test_what_nobody_asked_about_is_counted() -> None:
    """So that who finds nothing learns whether there was anything."""
    events = crowd(Random(1))
    everything = judge_stream(header(FULL), events, problems=[])
    nothing = judge_stream(header(FULL), events, problems=[], question=Question("no such DAG"))

    assert nothing.verdicts == []
    assert nothing.left_out == len(everything.verdicts)
    assert not everything.left_out
