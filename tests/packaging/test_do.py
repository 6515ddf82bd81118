"""The script that does everything, and the other ways into it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "do").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def do(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "do", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_target() -> None:
    targets = set(
        re.findall(r"^([a-z-]+)(?: \| -h \| --help)?\)", SCRIPT.split("\ntarget=")[1], re.MULTILINE)
    )

    assert targets >= {"setup", "demo", "test", "check", "lint", "format", "bench", "bpf", "wheel"}
    assert targets == set(re.findall(r"^  ([a-z-]+) ", do("help").stdout, re.MULTILINE))


def test_every_make_target_is_a_target_of_the_script() -> None:
    (line,) = re.findall(r"^TARGETS = (.*)$", MAKEFILE, re.MULTILINE)

    assert set(line.split()) <= set(re.findall(r"^  ([a-z-]+) ", do("help").stdout, re.MULTILINE))


def test_an_unknown_target_is_refused_in_one_line() -> None:
    done = do("frobnicate")

    assert done.returncode == 1
    assert done.stderr == "do: no target 'frobnicate'; ./do help lists them\n"


def test_ci_runs_the_command_of_the_readme() -> None:
    assert "exec ./do test\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "./do test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_second_setup_has_nothing_to_do() -> None:
    """Setup ran before these tests did: it must not install or compile a second time."""
    do("setup")

    assert do("setup").stdout == "==> ready: .venv/bin/pidtrail\n"
