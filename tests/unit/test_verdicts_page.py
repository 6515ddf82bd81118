"""docs/verdicts.md says what the rules say."""

from __future__ import annotations

from pidtrail.verdict.rules import RULES, code_of
from tests.airflow.examples import PLAYED, examples
from tests.unit.verdicts_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    """If not: `.venv/bin/python -m tests.unit.verdicts_page`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_code_has_a_run_of_a_real_airflow() -> None:
    """None is a story alone, and each run is played again by a test of its stage."""
    codes = {code_of(rule) for rule in RULES}

    assert examples().keys() == codes
    assert PLAYED.keys() == codes
