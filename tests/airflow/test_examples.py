"""The real runs that docs/verdicts.md shows are runs of this session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.airflow.examples import PLAYED, chosen, examples

if TYPE_CHECKING:
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]


@pytest.mark.parametrize("code", PLAYED)
def test_example_has_the_verdict_that_it_stands_for(session: Session, code: str) -> None:
    """What was done leads to that code, played anew, and the page has it from such a run."""
    played = PLAYED[code]
    kept = examples()[code]
    if session.is_2 != (played.major == "2"):
        # The other version's session proves it; the page says which that is.
        assert not kept.airflow.startswith("2." if session.is_2 else "3.")
        return

    verdict = chosen(session.verdicts, played)

    assert verdict is not None
    assert (verdict.code, verdict.outcome) == (code, kept.outcome)
    assert kept.airflow == session.version
    assert kept.done == played.done
