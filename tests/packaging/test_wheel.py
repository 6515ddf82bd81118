"""The wheel carries the compiled programs, and needs no compiler where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = {f"{source.name.removesuffix('.c')}.o" for source in ROOT.glob("bpf/*.bpf.c")}


@pytest.fixture(scope="module")
def without_clang(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment whose PATH has the ordinary tools, but no clang and no LLVM."""
    folder = tmp_path_factory.mktemp("bin")
    for tool in ("sh", "env", "ldconfig"):
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    assert shutil.which("clang", path=str(folder)) is None
    return {**os.environ, "PATH": str(folder)}


def run(*command: str | Path, env: dict[str, str]) -> str:
    """Run a command and return what it printed; show what it said where it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, without_clang: dict[str, str]) -> Path:
    """Build a source archive, and from what is in it, without clang, the wheel."""
    run(sys.executable, ROOT / "bpf/build_hook.py", env=dict(os.environ))
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    run(*build, env=without_clang)
    (made,) = folder.glob("*.whl")
    return made


def test_it_is_one_wheel_for_every_machine(wheel: Path) -> None:
    assert wheel.name.startswith("pidtrail-")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_it_carries_the_objects_the_marker_for_types_and_both_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert OBJECTS
    assert {f"pidtrail/bpf/{name}" for name in OBJECTS} <= names
    assert "pidtrail/py.typed" in names
    assert {"LICENSE", "LICENSE.GPL-2.0"} <= {Path(name).name for name in names}
    assert not [name for name in names if not name.startswith(("pidtrail/", "pidtrail-"))]


def test_the_objects_keep_btf_and_drop_debug_information(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in OBJECTS:
            content = archive.read(f"pidtrail/bpf/{name}")
            assert b".BTF.ext" in content
            assert b".debug_info" not in content
            assert len(content) < 200_000


@pytest.fixture(scope="module")
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, without_clang: dict[str, str]
) -> Path:
    """Install the wheel without extras, where there is no clang, and return its `bin`."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    python = place / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", place, env=without_clang)
    uv = Path(sys.executable).with_name("uv")
    pins = ROOT / "constraints.txt"
    run(
        *(uv, "pip", "install", "--quiet", "--python", python, "--constraints", pins, wheel),
        env=without_clang,
    )
    return place / "bin"


def test_it_installs_and_starts_where_there_is_no_clang(
    installed: Path, without_clang: dict[str, str]
) -> None:
    assert "Usage" in run(installed / "pidtrail", "--help", env=without_clang)
    listed = run(
        *(installed / "python", "-I", "-c"),
        "import importlib.resources as r\n"
        "print(*(file.name for file in r.files('pidtrail.bpf').iterdir()))",
        env=without_clang,
    )
    assert set(listed.split()) >= OBJECTS


def test_airflow_would_find_the_plugin(
    wheel: Path, installed: Path, without_clang: dict[str, str]
) -> None:
    """The extra is known, brings nothing with it, and the entry point names a class that is there.

    That a real Airflow loads it, without what pidtrail needs, tests/airflow/test_plugin.py shows.
    """
    uv = Path(sys.executable).with_name("uv")
    install = (uv, "pip", "install", "--offline", "--python", installed / "python")
    run(*install, f"pidtrail[airflow-plugin] @ {wheel.as_uri()}", env=without_clang)
    found = run(
        *(installed / "python", "-I", "-c"),
        "import ast, importlib.metadata as m, pathlib, pidtrail.airflow as a\n"
        "(point,) = m.entry_points(group='airflow.plugins')\n"
        "extras = m.metadata('pidtrail').get_all('Provides-Extra')\n"
        "needs = [r for r in m.requires('pidtrail') if 'airflow-plugin' in r]\n"
        "text = (pathlib.Path(a.__file__).parent / 'plugin.py').read_text()\n"
        "classes = [n.name for n in ast.parse(text).body if isinstance(n, ast.ClassDef)]\n"
        "print(point.module, point.attr in classes, 'airflow-plugin' in extras, needs)",
        env=without_clang,
    )

    assert found.split() == ["pidtrail.airflow.plugin", "True", "True", "[]"]


@pytest.mark.needs_root
@pytest.mark.needs_bpf
def test_what_is_installed_traces(
    installed: Path, tmp_path: Path, without_clang: dict[str, str]
) -> None:
    true = shutil.which("true")
    assert true is not None
    command = (installed / "pidtrail", "trace", "--format", "jsonl", "--", true)

    events = run(*command, env={**without_clang, "HOME": str(tmp_path)})

    assert '"type":"exec"' in events
    assert '"type":"exit"' in events
