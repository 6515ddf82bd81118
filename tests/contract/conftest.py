"""Each story is told once per source; a source may declare a limit, never fail in silence."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from pidtrail.sources.bcc import BccSource
from pidtrail.sources.bcc_arguments import TRACEFS, is_tracefs
from pidtrail.sources.core import CoreSource
from pidtrail.sources.procfs import ProcfsSource
from pidtrail.sources.source import Source
from tests.contract.story import Told, tell

CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h; os.unshare is new in Python 3.12
BCC = [pytest.mark.needs_root, pytest.mark.needs_bcc]
SOURCES: dict[str, tuple[Callable[[], Source], list[pytest.MarkDecorator]]] = {
    "core": (CoreSource, [pytest.mark.needs_root, pytest.mark.needs_bpf]),
    "bcc": (BccSource, BCC),
    "bcc-perf": (partial(BccSource, transport="perf"), BCC),
    "procfs": (ProcfsSource, []),
    "bcc-arguments": (partial(BccSource, structures=False), [*BCC, pytest.mark.needs_tracefs]),
}

Tell = Callable[..., Told]


@pytest.fixture(scope="session")
def tracefs() -> None:
    """
    Let the tracepoints' formats be readable, and leave the host's mounts as they are.

    Others may come to rely on a mount of the host's, another run of these tests for one, and
    would lose it with us: it is made in a mount namespace of our own, which ends with us.
    """
    if any(is_tracefs(place) for place in TRACEFS):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACEFS[0]], check=True)


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in SOURCES.items()])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Return a source that is not open yet, and close it in the end."""
    yield from made(request, SOURCES[request.param][0])


def made(request: pytest.FixtureRequest, make: Callable[[], Source]) -> Iterator[Source]:
    """Make a source with what its mark says that it needs, and close it in the end."""
    if request.node.get_closest_marker("needs_tracefs") is not None:
        request.getfixturevalue("tracefs")
    source = make()
    yield source
    source.close()


def require(source: Source, needs: str) -> None:
    """Skip a test that a source declares it cannot pass, by the names of fields of Fidelity."""
    for field in needs.split():
        if not getattr(source.fidelity, field):
            pytest.skip(f"source {source.name} declares {field}=False")


@pytest.fixture
def told_by(source: Source) -> Tell:
    """
    Return the function that runs a program under the source.

    `needs` names fields of Fidelity; a source that declares one of them False is
    excused from this test, and pytest shows why.
    """

    def run(name: str, *arguments: str, needs: str = "", **options: Any) -> Told:
        require(source, f"sees_short_lived {needs}")
        return tell(source, name, *arguments, **options)

    return run
