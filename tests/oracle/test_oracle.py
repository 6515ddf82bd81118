"""
Random workloads keep their own books; the tree of a source must say the same.

A failure names the seed; `python -m tests.oracle --seed N [--source S]` shows it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from msgspec import structs

from pidtrail.sources.bcc import BccSource
from pidtrail.sources.connector import ConnectorSource
from pidtrail.sources.core import CoreSource
from pidtrail.sources.source import Source
from tests.oracle.books import Run, differences, watch

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]
SEEDS = 200
AT_ONCE = 50


@pytest.mark.needs_bpf
@pytest.mark.parametrize("first", range(1, SEEDS, AT_ONCE))
def test_core_agrees_with_the_books(first: int) -> None:
    """
    Processes, births, starts, images, numbers, ends and last parents of 200 workloads.

    Forks, vforks, threads, execs, also from a thread, signals, double forks, sessions,
    subreapers, siblings by CLONE_PARENT, namespaces in namespaces, and killed ones.
    """
    source = CoreSource()
    assert differences(watch(source, first, AT_ONCE), source) == []


OTHERS: list[tuple[str, Callable[[], Source], list[pytest.MarkDecorator]]] = [
    ("connector", ConnectorSource, []),
    ("bcc", BccSource, [pytest.mark.needs_bcc]),
    ("bcc-perf", partial(BccSource, transport="perf"), [pytest.mark.needs_bcc]),
    (
        "bcc-arguments",
        partial(BccSource, structures=False),
        [pytest.mark.needs_bcc, pytest.mark.needs_tracefs],
    ),
]


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=marks) for name, make, marks in OTHERS]
)
def test_the_others_agree_as_far_as_they_claim_to_know(
    make: Callable[[], Source], request: pytest.FixtureRequest
) -> None:
    """Processes, births, images, ends; what a source says that it knows is right."""
    if request.node.get_closest_marker("needs_tracefs") is not None:
        request.getfixturevalue("tracefs")
    source = make()
    assert differences(watch(source, 1, AT_ONCE), source) == []


@pytest.mark.needs_bpf
def test_one_large_workload() -> None:
    """Four hundred processes that are all of one family."""
    source = CoreSource()
    assert differences(watch(source, 1000, 3, 400), source) == []


@pytest.fixture(scope="module")
def one_run() -> Run:
    """One workload under core, to spoil."""
    return watch(CoreSource(), 7, 1)


@pytest.mark.needs_bpf
def test_the_comparison_would_notice(one_run: Run) -> None:
    """A process missing or too many, another start, end, parent or image: each is a difference."""
    source, booked = CoreSource(), one_run.entries
    assert differences(one_run, source) == []
    first, others = booked[5], [*booked[:5], *booked[6:]]
    spoiled = [
        structs.replace(first, start=first.start + 1),
        structs.replace(first, wstatus=first.wstatus ^ 256),
        structs.replace(first, ppid=first.ppid + 1),
        structs.replace(first, images=first.images + 1),
        structs.replace(first, ns_pids=[*first.ns_pids, 4]),
        structs.replace(first, pid=99_999),
    ]
    for entry in spoiled:
        assert differences(structs.replace(one_run, entries=[*others, entry]), source) != []
    assert differences(structs.replace(one_run, entries=others), source) != []
