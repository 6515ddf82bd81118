"""No test is left out in silence: a skip has a reason, and fails where all must be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a checkout with one test, which needs an Airflow that is not there."""
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "tests")
    (tmp_path / "tests/test_one.py").write_text(
        "import pytest\n@pytest.mark.needs_airflow\ndef test_one(): pass\n", encoding="utf-8"
    )
    return tmp_path


def outcome(place: Path, require: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=place,
        env={**os.environ, "REQUIRE": require},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_missing_is_skipped_with_the_reason(place: Path) -> None:
    status, said = outcome(place, "")

    assert status == 0
    assert "airflow: no, no Airflow is installed" in said
    assert "needs airflow: no Airflow is installed" in said


def test_what_is_required_and_missing_fails(place: Path) -> None:
    status, said = outcome(place, "airflow")

    assert status == 1
    assert "required, but missing: airflow: no Airflow is installed" in said


def test_a_misspelt_requirement_is_refused(place: Path) -> None:
    status, said = outcome(place, "airflwo")

    assert status == 4
    assert "REQUIRE: unknown ['airflwo']" in said
