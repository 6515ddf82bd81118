"""How `trace` is told where Airflow's database is, without a password that others can read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pidtrail.sources.replay import Replay

PIDTRAIL = Path(sys.executable).with_name("pidtrail")
SECRET = "s3cr3t-of-the-database"

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]


def traced(folder: Path, *options: str, environ: dict[str, str]) -> str:
    """Trace `env`; return what it, and pidtrail, said."""
    done = subprocess.run(
        [PIDTRAIL, "trace", *options, "--format", "none", "-o", folder / "s.db", "--", "env"],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def url(folder: Path) -> str:
    """Return the URL of a database at which nobody listens."""
    return f"postgresql://airflow:{SECRET}@127.0.0.1:1/{folder.name}"


@pytest.mark.parametrize("how", ["variable", "file"])
def test_the_environment_names_it_and_the_command_does_not_inherit_that(
    tmp_path: Path, how: str
) -> None:
    """It is the database of the header; the secret is in no output and in no recording."""
    environ = {"PIDTRAIL_AIRFLOW_DB": url(tmp_path)}
    if how == "file":
        (tmp_path / "url").write_text(url(tmp_path))
        environ = {"PIDTRAIL_AIRFLOW_DB_FILE": str(tmp_path / "url")}

    said = traced(tmp_path, environ=environ)

    assert f"127.0.0.1:1/{tmp_path.name}" in (
        Replay(str(tmp_path / "s.db")).header.airflow_db or ""
    )
    assert SECRET not in said
    assert SECRET.encode() not in (tmp_path / "s.db").read_bytes()


def test_a_password_on_the_command_line_is_taken_with_a_warning(tmp_path: Path) -> None:
    """Every user of the host can read it there; the warning names the way, and not the password."""
    said = traced(tmp_path, "--airflow-db", url(tmp_path), environ={})

    assert "PIDTRAIL_AIRFLOW_DB_FILE" in said
    assert SECRET not in said
    assert SECRET.encode() not in (tmp_path / "s.db").read_bytes()


def test_a_file_with_two_urls_is_refused_without_them(tmp_path: Path) -> None:
    """The second would be shown as the name of the first's database, password and all."""
    (tmp_path / "url").write_text(f"{url(tmp_path)}\n{url(tmp_path)}\n")

    done = subprocess.run(
        [PIDTRAIL, "trace", "-o", tmp_path / "s.db", "--", "true"],
        env=os.environ | {"PIDTRAIL_AIRFLOW_DB_FILE": str(tmp_path / "url")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "more than one line" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everybody_may_read_is_taken_with_a_warning(
    tmp_path: Path, mode: int, is_warned: bool
) -> None:
    """The warning names the file; the mark that Windows puts before a text is left out."""
    file = tmp_path / "url"
    file.write_text(f"\ufeff{url(tmp_path)}\r\n")
    file.chmod(mode)

    said = traced(tmp_path, environ={"PIDTRAIL_AIRFLOW_DB_FILE": str(file)})

    assert (f"mode 0644 of {file}" in said) == is_warned
    assert f"127.0.0.1:1/{tmp_path.name}" in (
        Replay(str(tmp_path / "s.db")).header.airflow_db or ""
    )
