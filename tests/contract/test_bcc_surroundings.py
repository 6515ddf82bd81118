"""Where bcc's programs run: in another namespace, with wrong offsets, beside others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pidtrail.errors import SourceUnavailable
from pidtrail.events import Exit, Fork, Signal
from pidtrail.sources import bcc_offsets
from pidtrail.sources.bcc import BccSource
from pidtrail.sources.btf import Btf
from tests.contract.inside import tell_inside
from tests.contract.story import Told, tell

NEW_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bcc]


def shifted(btf: Btf) -> list[str]:
    """Return the offsets of another kernel: every one of task_struct sixteen bytes off."""
    words = []
    for word in true_defines(btf):
        name, _, number = word.partition("=")
        words.append(f"{name}={int(number) + 16}" if "O_task_struct__" in name else word)
    return words


true_defines = bcc_offsets.defines


def test_wrong_offsets_are_refused_by_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compile, load and read garbage without an error, and the agent is not found."""
    monkeypatch.setattr(bcc_offsets, "defines", shifted)
    source = BccSource(structures=True)

    with pytest.raises(SourceUnavailable, match="self-test failed"):
        source.open([os.getpid()])

    assert source.view is None
    assert source.ring is None


@pytest.mark.parametrize("depth", [1, 2])
def test_agent_in_its_own_namespace_speaks_its_numbers(depth: int) -> None:
    """In a container, also one within a container, all numbers are those seen in there."""
    told = tell_inside(NEW_NAMESPACE * depth, "killed", "kill", source="bcc")
    assert isinstance(told, Told), told
    victim, killer = told.said("victim"), told.said("killer")

    assert (told.agent, victim["pid"] < 100) == (1, True)
    birth = told.only(Fork, victim["pid"])
    assert (birth.ppid, birth.start_ticks) == (told.root, victim["start"])
    shot = told.only(Signal, victim["pid"])
    assert (shot.sender_pid, shot.sender_start_ticks) == (killer["pid"], killer["start"])


def test_arguments_alone_are_refused_in_a_namespace() -> None:
    """Their numbers are the host's, which mean nothing in there."""
    refused = tell_inside(NEW_NAMESPACE, "setsid", source="bcc-arguments")

    assert isinstance(refused, str)
    assert "initial PID namespace" in refused


@pytest.mark.needs_tracefs
@pytest.mark.usefixtures("tracefs")
def test_with_wrong_offsets_the_arguments_still_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source opens with less, and says why."""
    monkeypatch.setattr(bcc_offsets, "defines", shifted)
    source = BccSource()
    assert source.fidelity.has_wstatus

    told = tell(source, "setsid")

    child = told.said("before")["pid"]
    assert told.only(Fork, child).ppid == told.root
    assert told.only(Exit, child).wstatus is None
    assert not source.fidelity.has_wstatus
    (said,) = source.problems()
    assert "self-test failed" in said
    assert source.problems() == []


def test_headers_of_another_kernel_do_no_harm() -> None:
    """What is read is where BTF says; the headers at hand may be years older."""
    source = BccSource(structures=True)
    try:
        told = tell(source, "double_fork")
    finally:
        source.close()

    daemon = told.said("daemon")
    assert told.only(Fork, daemon["pid"]).start_ticks == daemon["start"]
    assert told.only(Exit, daemon["pid"]).exit_code == 6


def test_two_agents_do_not_disturb_each_other() -> None:
    """Each has its own programs, maps and buffers."""
    first, second = BccSource(transport="ring"), BccSource(transport="perf")
    first.open([])
    try:
        told = tell(second, "setsid")
    finally:
        second.close()
    assert first.read() == []
    first.close()
    assert len(told.born()) == 1


def test_close_leaves_no_descriptor() -> None:
    """Opened and closed twice, as many files are open as before."""
    BccSource().close()
    probe_once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    probe_once()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def probe_once() -> None:
    source = BccSource()
    source.open([])
    source.close()
    source.close()
