"""The script that does everything, and the other ways into it."""

from __future__ import annotations

import os
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


def test_what_the_host_says_to_pip_is_known_to_uv_too(tmp_path: Path) -> None:
    """The administrator's file counts beside the user's; a folder that is missing does not."""
    (tmp_path / "pip").mkdir()
    settings = "[global]\npidtrail-one = no\n[install]\npidtrail-one =\n  /not/there\n  /usr\n"
    (tmp_path / "pip/pip.conf").write_text(settings)
    each = "for one; do pip_says $one; echo $said; done"
    of_pip = r"^(?:pip_says|pip_setting)\(\) \{\n.*?^\}\n"
    functions = re.findall(of_pip, SCRIPT, re.MULTILINE | re.DOTALL)

    done = subprocess.run(
        ["sh", "-euc", f"{''.join(functions)}{each}", "sh", "pidtrail-one", "pidtrail-other"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": ".venv/bin/python", "XDG_CONFIG_DIRS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == ["/usr", ""]
