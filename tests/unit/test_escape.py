from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.reports.escape import visible

ANYTHING = st.text(st.characters()) | st.text(
    st.sampled_from(
        "a\u200b\u2060\u00ad\ufe0f\U000e0041\x00\x07\x1b\n\r\t\x7f\x85\x9b\u061c\u200e\u202e\u2028\u2066\ufeff\ud800é…"
    )
)
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(ANYTHING, st.none() | st.integers(0, 50))
def test_nothing_that_a_terminal_obeys_is_left(text: str, limit: int | None) -> None:
    """No control, no surrogate, no line separator, no direction; and no more than `limit`."""
    shown = visible(text, limit)

    assert {unicodedata.category(c) for c in shown} & OBEYED == set()
    assert {unicodedata.bidirectional(c) for c in shown} & BIDI == set()
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert limit is None or len(shown) <= limit


@given(ANYTHING)
def test_what_is_shown_can_be_shown_again(text: str) -> None:
    """Escaping twice is escaping once."""
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("airflow task runner: etl load", "airflow task runner: etl load"),
        ("Zürich 東京 'quoted' \\n", "Zürich 東京 'quoted' \\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b2J", "\\x9b2J"),
        ("exe\u202egnp", "exe\\u202egnp"),
        ("\ud83d", "\\ud83d"),
        ("\ufefftop", "\\ufefftop"),
        ("load\u200b", "load\\u200b"),
        ("lo\u00adad", "lo\\xadad"),
        ("load\u00a0x", "load\\xa0x"),
        ("load\u3164\ufe00", "load\\u3164\\ufe00"),
        ("load\U000e0061", "load\\U000e0061"),
    ],
)
def test_escapes_read_as_python_would_write_them(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_name_of_ten_thousand_characters_stays_on_one_line() -> None:
    """Cut where asked, with a sign that it was."""
    name = "x\n" * 5_000

    assert visible(name, 80) == ("x\\n" * 40)[:79] + "…"
    assert visible(name) == "x\\n" * 5_000
    assert visible("short", 5) == "short"
    assert visible("longer", 5) == "long…"
