"""The BPF objects: compiled by every clang that is here, and only when they have to be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bpf import build_hook
from bpf.build_hook import BuildError, build, find_tool

SOURCES = sorted(build_hook.HERE.glob("*.bpf.c"))
CLANGS = ["clang", *(f"clang-{number}" for number in range(14, 30))]
PRESENT = [name for name in CLANGS if shutil.which(name)]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the BPF sources that the build takes for its own."""
    copy = tmp_path / "bpf"
    shutil.copytree(build_hook.HERE, copy)
    monkeypatch.setattr(build_hook, "HERE", copy)
    return copy


@pytest.mark.parametrize("clang", PRESENT)
def test_every_clang_here_compiles_every_program(clang: str, tmp_path: Path) -> None:
    path = shutil.which(clang)
    assert path is not None

    said = list(build(tmp_path, clang=path))

    assert said == [f"compiling {source.name} with {clang}" for source in SOURCES]
    for source in SOURCES:
        content = (tmp_path / f"{source.name.removesuffix('.c')}.o").read_bytes()
        assert content.startswith(b"\x7fELF")
        assert b".BTF.ext" in content
        assert b".debug_info" not in content


def test_a_second_build_compiles_nothing(checkout: Path, tmp_path: Path) -> None:
    assert len(list(build(tmp_path / "out"))) == len(SOURCES)
    assert list(build(tmp_path / "out")) == []
    assert not list((tmp_path / "out").glob(".*")), "left something half-written"
    assert checkout.is_dir()


@pytest.mark.parametrize("changed", ["event.h", "vmlinux_min.h"])
def test_a_newer_header_makes_every_object_anew(
    checkout: Path, tmp_path: Path, changed: str
) -> None:
    list(build(tmp_path / "out"))
    later = (tmp_path / "out" / "lifecycle.bpf.o").stat().st_mtime + 10
    os.utime(checkout / changed, (later, later))

    assert len(list(build(tmp_path / "out"))) == len(SOURCES)


def test_objects_that_are_there_need_no_clang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(build(tmp_path / "out"))
    monkeypatch.setenv("PATH", "/nowhere")

    assert list(build(tmp_path / "out")) == []


def test_without_clang_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(BuildError, match=r"clang is not installed.*install clang and llvm"):
        list(build(tmp_path / "out"))


def test_a_program_that_does_not_compile_leaves_no_object(checkout: Path, tmp_path: Path) -> None:
    (checkout / "lifecycle.bpf.c").write_text("int x = y;\n", encoding="utf-8")

    with pytest.raises(BuildError, match="undeclared identifier 'y'"):
        list(build(tmp_path / "out"))
    assert not (tmp_path / "out" / "lifecycle.bpf.o").exists()


@pytest.mark.parametrize(
    ("tools", "beside", "found"),
    [
        (["clang"], "", "clang"),
        (["clang-14", "clang-19"], "", "clang-19"),
        (["llvm-strip", "llvm-strip-14"], "/usr/bin/clang-14", "llvm-strip-14"),
        (["llvm-strip", "llvm-strip-19"], "/usr/bin/clang", "llvm-strip"),
    ],
)
def test_tools_are_found_with_and_without_a_version(
    tools: list[str], beside: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in tools:
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert Path(find_tool(tools[0].partition("-1")[0], beside=beside)).name == found
