"""How a process ended, and who ended it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidtrail.events import Exit, Oom, Signal
from pidtrail.lab.cgroup import remove
from tests.contract.conftest import Tell

MEMORY_V1 = Path("/sys/fs/cgroup/memory")
UNIFIED = Path("/sys/fs/cgroup")
LIMIT_BYTES = 30 << 20


def test_sigkill_names_its_sender(told_by: Tell) -> None:
    """The victim's record says who sent SIGKILL: number, start, name and user."""
    told = told_by("killed", "kill", needs="has_signals")
    victim, killer = told.said("victim"), told.said("killer")

    shot = told.only(Signal, victim["pid"])
    assert (shot.sig, shot.code) == (signal.SIGKILL, 0)
    assert (shot.sender_pid, shot.sender_start_ticks) == (killer["pid"], killer["start"])
    assert (shot.sender_comm, shot.sender_uid) == ("assassin", os.getuid())
    end = told.only(Exit, victim["pid"])
    assert (end.wstatus, end.exit_code, end.termsig, end.core_dumped) == (9, None, 9, False)
    assert shot.ts_boot_ns <= end.ts_boot_ns


def test_segmentation_fault_has_no_sender(told_by: Tell) -> None:
    """A fault is the kernel's signal, whoever was running."""
    told = told_by("killed", "segv", needs="has_signals")
    victim = told.said("victim")

    shot = told.only(Signal, victim["pid"])
    assert shot.sig == signal.SIGSEGV
    assert shot.code == 1  # SEGV_MAPERR
    assert (shot.sender_pid, shot.sender_start_ticks, shot.sender_comm) == (None, None, None)
    end = told.only(Exit, victim["pid"])
    assert end.wstatus == told.collected(victim["pid"])["wstatus"]
    assert (end.exit_code, end.termsig) == (None, signal.SIGSEGV)


def test_handled_faults_are_told_once(told_by: Tell) -> None:
    """Who handles its faults may have any number of them: told are the first, and the end."""
    told = told_by("killed", "faults", needs="has_signals")
    victim = told.said("victim")

    shot = told.only(Signal, victim["pid"])
    assert (shot.sig, shot.code, shot.sender_pid) == (signal.SIGSEGV, 1, None)
    assert told.only(Exit, victim["pid"]).termsig == signal.SIGSEGV


def test_abort_is_a_signal_from_itself(told_by: Tell) -> None:
    """abort(3) sends SIGABRT by tgkill: the sender is the process itself."""
    told = told_by("killed", "abort", needs="has_signals")
    victim = told.said("victim")

    shots = told.of(Signal, victim["pid"])
    assert {shot.sig for shot in shots} == {signal.SIGABRT}
    assert {(shot.sender_pid, shot.sender_start_ticks) for shot in shots} == {
        (victim["pid"], victim["start"])
    }
    assert shots[0].code == -6  # SI_TKILL
    end = told.only(Exit, victim["pid"])
    assert end.wstatus == told.collected(victim["pid"])["wstatus"]
    assert end.termsig == signal.SIGABRT


def test_core_dump_is_told(told_by: Tell, tmp_path: Path) -> None:
    """Bit 7 of the wait status, as the parent gets it from waitpid(2)."""
    told = told_by("killed", "dump", str(tmp_path), needs="has_wstatus")
    victim = told.said("victim")

    end = told.only(Exit, victim["pid"])
    assert end.core_dumped is os.WCOREDUMP(told.collected(victim["pid"])["wstatus"]) is True
    assert (end.exit_code, end.termsig) == (None, signal.SIGABRT)


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """Return the cgroup.procs of a memory cgroup, v1 or v2, with a limit of 30 MB and no swap."""
    controllers = UNIFIED / "cgroup.subtree_control"
    if (MEMORY_V1 / "memory.limit_in_bytes").exists():
        parent, limits = MEMORY_V1, {"memory.limit_in_bytes": LIMIT_BYTES}
    elif controllers.exists() and "memory" in controllers.read_text().split():
        parent, limits = UNIFIED, {"memory.max": LIMIT_BYTES, "memory.swap.max": 0}
    else:
        why = "no memory controller in /sys/fs/cgroup, neither v1 nor v2"
        if "bpf" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail(why)
        pytest.skip(why)
    group = parent / f"pidtrail-test-{os.getpid()}"
    # One of a killed test that had our number may still be there.
    group.mkdir(exist_ok=True)
    try:
        for name, value in limits.items():
            if (group / name).exists():
                (group / name).write_text(str(value))
        yield group / "cgroup.procs"
    finally:
        remove(group)


def test_out_of_memory_victim_is_named(told_by: Tell, small_cgroup: Path) -> None:
    """The kernel's choice of victim is a record of its own, and SIGKILL then has no sender."""
    told = told_by("memory_hog", str(small_cgroup), needs="has_signals")
    hog = told.said("hog")

    chosen = told.only(Oom, hog["pid"])
    assert chosen.victim_comm == "memory_hog"
    assert chosen.total_vm_kib is not None
    assert chosen.total_vm_kib >= 80 << 10
    assert chosen.anon_rss_kib is not None
    # It got as far as the limit let it; rss is counted in per-CPU batches, so not to the page.
    assert (LIMIT_BYTES >> 10) * 0.8 < chosen.anon_rss_kib < 80 << 10
    kill = told.only(Signal, hog["pid"])
    assert (kill.sig, kill.sender_pid, kill.sender_comm) == (signal.SIGKILL, None, None)
    assert told.only(Exit, hog["pid"]).wstatus == 9
    assert chosen.ts_boot_ns <= told.only(Exit, hog["pid"]).ts_boot_ns
