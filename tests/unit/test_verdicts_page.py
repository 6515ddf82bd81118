"""docs/verdicts.md says what the rules say."""

from __future__ import annotations

from tests.unit.verdicts_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    """If not: `.venv/bin/python -m tests.unit.verdicts_page`."""
    assert PAGE.read_text(encoding="utf-8") == page()
