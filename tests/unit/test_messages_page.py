"""docs/messages.md says what the tables of messages say."""

from __future__ import annotations

from pidtrail.airflow.messages import TABLE
from tests.unit.messages_page import PAGE, PARTS, page


def test_the_page_is_made_from_the_tables() -> None:
    """Made anew it is the same: `.venv/bin/python -m tests.unit.messages_page`."""
    assert PAGE.read_text() == page()


def test_the_page_has_every_message() -> None:
    """No table was forgotten."""
    assert {message.kind for _, table in PARTS for message in table} == {
        message.kind for message in TABLE
    }
