"""Stopped by a real systemd: the verdict names it, for it is no process of Airflow."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pidtrail.verdict.model import Report
from tests.contract.kubelet import directory

HERE = Path(__file__).parent
BOOT = HERE.parent / "programs/boot.sh"
PIDTRAIL = Path(sys.executable).with_name("pidtrail")

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf, pytest.mark.needs_systemd]


def test_systemd_that_stops_a_worker_is_named(tmp_path: Path) -> None:
    """`systemctl stop`: SIGTERM, then SIGKILL to who is left, from process 1 of its namespace."""
    recording, root = tmp_path / "session.db", tmp_path / "root"
    root.mkdir()
    with directory(2) as cgroup:
        boot = [BOOT, cgroup, root, HERE / "service_manager.sh", HERE / "worker_stand_in.py"]
        subprocess.run(
            [PIDTRAIL, "trace", "--format", "none", "-o", recording, "--", *boot],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    told = subprocess.run(
        [PIDTRAIL, "explain", recording, "--json"], capture_output=True, check=True
    )

    (verdict,) = msgspec.json.decode(told.stdout, type=Report).verdicts
    (runner,) = [one for one in verdict.processes if one.role == "runner"]
    by = runner.killed_by
    assert by is not None
    assert by.sender is not None
    assert (by.kind, by.sig) == ("signal", signal.SIGKILL)
    assert (by.sender.comm, by.sender.role) == ("systemd", "service_manager")
    assert "SIGKILL by the service manager, systemd" in verdict.summary
