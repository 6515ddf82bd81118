"""Every verdict code has a story that fires it, and can be asked for by name."""

from __future__ import annotations

import pytest

from pidtrail.verdict.meaning import meaning
from pidtrail.verdict.rules import RULES, code_of
from tests.unit.example_stories import EXAMPLES

CODES = [code_of(rule) for rule in RULES]


def test_there_is_an_example_for_every_code_and_no_other() -> None:
    assert sorted(EXAMPLES) == sorted(CODES)


@pytest.mark.parametrize("code", CODES)
def test_the_example_fires_its_rule_and_names_its_evidence(code: str) -> None:
    """Of all rules this one answers first, and its evidence is records of the story."""
    story, try_number = EXAMPLES[code]()

    verdict = story.verdict(try_number)

    assert verdict.code == code
    assert verdict.evidence
    assert set(verdict.evidence) <= {event.seq for event in story.events}
    assert verdict.pid_changed_in_kernel is False


@pytest.mark.parametrize("code", CODES)
def test_the_verdict_does_not_depend_on_the_order_of_the_records(code: str) -> None:
    """A recording that was merged from several sources tells the same."""
    story, try_number = EXAMPLES[code]()
    told = story.verdict(try_number)
    story.events.reverse()

    assert story.verdict(try_number).code == told.code


@pytest.mark.parametrize("code", CODES)
def test_the_code_is_explained(code: str) -> None:
    assert meaning(code).text.startswith(f"{code}\n\n")
