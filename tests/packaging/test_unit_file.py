"""The systemd unit, judged by systemd's own tools; no running systemd is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "pidtrail.service"
MOST_EXPOSED = 35  # tenths: `systemd-analyze security` calls 4.9 and less OK

pytestmark = pytest.mark.needs_systemd


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit with a program that is here, whatever is installed in /opt."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/pidtrail/bin/pidtrail" in text
    copy.write_text(text.replace("/opt/pidtrail/bin/pidtrail", "/bin/sh"), encoding="utf-8")
    return copy


def test_systemd_finds_nothing_to_complain_about(unit: Path) -> None:
    done = analyze("verify", "--man=no", unit)

    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    assert done.returncode == 0, done.stderr


def test_it_exposes_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)

    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_systemd_understands_the_files_beside_the_unit(tmp_path: Path) -> None:
    """The user is made, and the folder of the sockets is his; the unit names the same."""
    (tmp_path / "etc").mkdir()
    for tool, kind in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        file = UNIT.parent / kind / "pidtrail.conf"
        create = ["--create"] if kind == "tmpfiles.d" else []
        done = subprocess.run(
            [tool, f"--root={tmp_path}", *create, file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    users = (tmp_path / "etc/passwd").read_text(encoding="utf-8")

    assert users.startswith("pidtrail:")
    assert (tmp_path / "run/pidtrail").stat().st_mode & 0o777 == 0o755
    unit = UNIT.read_text(encoding="utf-8")
    assert "\nUser=pidtrail\nGroup=pidtrail\n" in unit
    assert "\nRuntimeDirectory=pidtrail\nRuntimeDirectoryMode=0755\n" in unit
