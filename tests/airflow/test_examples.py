"""The real runs that docs/verdicts.md shows are runs of this session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.airflow.examples import assert_shown, of_stage

if TYPE_CHECKING:
    from tests.airflow.conftest import Session

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.timeout(900)]


@pytest.mark.parametrize("code", of_stage("airflow"))
def test_example_has_the_verdict_that_it_stands_for(session: Session, code: str) -> None:
    """What was done leads to that code, played anew, and the page has it from such a run."""
    assert_shown(code, session.recording.parent)
