"""Each story is told once per source; a source may declare a limit, never fail in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pidtrail.sources.core import CoreSource
from pidtrail.sources.source import Source
from tests.contract.story import Told, tell

SOURCES: dict[str, tuple[Callable[[], Source], list[pytest.MarkDecorator]]] = {
    "core": (CoreSource, [pytest.mark.needs_root, pytest.mark.needs_bpf]),
}

Tell = Callable[..., Told]


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in SOURCES.items()])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Return a source that is not open yet, and close it in the end."""
    made = SOURCES[request.param][0]()
    yield made
    made.close()


@pytest.fixture
def told_by(source: Source) -> Tell:
    """
    Return the function that runs a program under the source.

    `needs` names fields of Fidelity; a source that declares one of them False is
    excused from this test, and pytest shows why.
    """

    def run(name: str, *arguments: str, needs: str = "", **options: Any) -> Told:
        for field in needs.split():
            if not getattr(source.fidelity, field):
                pytest.skip(f"source {source.name} declares {field}=False")
        return tell(source, name, *arguments, **options)

    return run
