"""Source `bcc` without a kernel: which module, which headers, which offsets, in which order."""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidtrail.errors import SourceUnavailable
from pidtrail.sources import bcc_program, host
from pidtrail.sources.bcc_arguments import HOOKS, Arguments, fields
from pidtrail.sources.btf import Btf, BtfError
from pidtrail.sources.procdir import PF_EXITING, ProcDirectory, Stat
from pidtrail.sources.reorder import Reorder


@pytest.fixture(autouse=True)
def no_bcc_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test begin and end without a module called bcc."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "bcc"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "bcc"]:
        del sys.modules[name]


def package(place: Path, text: str) -> Path:
    """Make a package called bcc."""
    (place / "bcc").mkdir(parents=True)
    (place / "bcc" / "__init__.py").write_text(text)
    return place


RIGHT = "from bcc import other\nclass BPF:\n    @staticmethod\n    def get_syscall_fnname(): ...\n"
CRYSTAL = "class BCC:\n    '''N-dimensional lattice'''\n"


def test_distributions_module_is_found_without_its_folder_on_the_path(tmp_path: Path) -> None:
    """Only the one package is taken, with its own modules."""
    place = package(tmp_path, RIGHT)
    (place / "bcc" / "other.py").write_text("")

    module = bcc_program.load_module([str(place)])

    assert module.__file__ == str(place / "bcc" / "__init__.py")
    assert "bcc.other" in sys.modules
    assert str(place) not in sys.path


def test_pypis_lattice_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called bcc too, and says nothing about BPF."""
    monkeypatch.syspath_prepend(str(package(tmp_path, CRYSTAL)))

    with pytest.raises(SourceUnavailable, match=r"crystal-lattice.*pip uninstall bcc"):
        bcc_program.load_module([str(tmp_path / "none")])


def test_distributions_module_wins_over_the_lattice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lattice library in our environment does not stand in the way."""
    monkeypatch.syspath_prepend(str(package(tmp_path / "venv", CRYSTAL)))
    right = package(tmp_path / "dist", RIGHT)
    (right / "bcc" / "other.py").write_text("")

    assert bcc_program.is_right(bcc_program.load_module([str(right)]))


def test_no_module_at_all_says_which_package(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="python3-bpfcc"):
        bcc_program.load_module([str(tmp_path)])


def test_a_module_that_breaks_leaves_nothing_loaded(tmp_path: Path) -> None:
    """As when libbcc is missing: an OSError from ctypes."""
    place = package(tmp_path, "raise OSError('libbcc.so.0: cannot open')\n")

    with pytest.raises(SourceUnavailable, match=r"libbcc\.so\.0"):
        bcc_program.load_module([str(place)])
    assert "bcc" not in sys.modules


def headers(root: Path) -> Path | None:
    with bcc_program.headers(root) as folder:
        return folder


def test_no_headers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bcc_program.NAMED, raising=False)

    with pytest.raises(SourceUnavailable, match="no kernel headers"):
        headers(tmp_path)
    assert host.headers(tmp_path) == []


def test_named_headers_must_be_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user named is taken, or complained about; never passed over."""
    monkeypatch.setenv(bcc_program.NAMED, str(tmp_path))
    with pytest.raises(SourceUnavailable, match=r"kconfig\.h"):
        headers(Path("/"))
    assert host.headers() == []
    (tmp_path / "include/linux").mkdir(parents=True)
    (tmp_path / "include/linux/kconfig.h").touch()

    assert headers(Path("/")) == tmp_path
    assert host.headers() == [str(tmp_path)]


def test_own_headers_are_left_to_bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bcc_program.NAMED, raising=False)
    release = os.uname().release
    (tmp_path / "lib/modules" / release / "build").mkdir(parents=True)

    assert headers(tmp_path) is None
    assert host.headers(tmp_path) == [str(tmp_path / "lib/modules" / release / "build")]


def test_debians_two_trees_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kernel's headers do: generated ones from one tree, the rest from the other."""
    monkeypatch.delenv(bcc_program.NAMED, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    own, common = (tmp_path / "usr/src" / f"linux-headers-6.1.0-9-{x}" for x in ("amd64", "common"))
    for tree, place in (
        (own, "include/generated"),
        (own, "arch/x86/include/generated"),
        (common, "include/linux"),
        (common, "arch/x86/include/asm"),
    ):
        (tree / place).mkdir(parents=True)
    (common / "include/linux/kconfig.h").touch()

    with bcc_program.headers(tmp_path) as folder:
        assert folder is not None
        assert (folder / "include/linux/kconfig.h").exists()
        assert (folder / "include/generated").is_dir()
        assert (folder / "arch/x86/include/asm").is_dir()
        assert (folder / "arch/x86/include/generated").is_dir()
    assert not folder.exists()
    assert host.headers(tmp_path) == [str(own), str(common)]


FORMAT = """name: sched_process_exit
ID: 300
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] filename;\toffset:28;\tsize:4;\tsigned:1;
\tfield:bool group_dead;\toffset:32;\tsize:1;\tsigned:0;
"""


def test_fields_of_a_tracepoint(tmp_path: Path) -> None:
    """Arrays, places of strings and plain values, by name."""
    (tmp_path / "format").write_text(FORMAT)

    found = fields(tmp_path / "format")

    assert found == {"common_type", "comm", "pid", "filename", "group_dead"}
    assert fields(tmp_path / "none") == set()


def arguments(place: Path) -> Arguments:
    return Arguments(sys, [], lambda: 1, tracefs=[place])


def test_without_tracefs_it_says_what_to_mount(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="mount -t tracefs"):
        arguments(tmp_path).formats()


def test_a_tracepoint_without_an_argument_is_refused(tmp_path: Path) -> None:
    """What is read must be there, or nothing is."""
    for hook in HOOKS:
        folder = tmp_path / "events" / hook.replace(":", "/")
        folder.mkdir(parents=True)
        names = sorted(HOOKS[hook][1] - {"clone_flags"})
        (folder / "format").write_text(
            "".join(f"\tfield:int {name};\toffset:8;\n" for name in names)
        )

    with pytest.raises(SourceUnavailable, match="task_newtask has no clone_flags"):
        arguments(tmp_path).formats()


def test_a_struct_that_contains_itself_is_refused() -> None:
    """Damaged information ends in BtfError, not in the depth of the stack."""
    types = struct.pack("=III", 1, 4 << 24 | 1, 4) + struct.pack("=III", 0, 1, 0)

    with pytest.raises(BtfError):
        Btf(blob(types, b"\0outer\0")).offset("outer", "a")


def test_members_behind_the_end_are_refused() -> None:
    types = struct.pack("=III", 1, 4 << 24 | 0xFFFF, 4)

    with pytest.raises(BtfError):
        Btf(blob(types, b"\0outer\0a\0")).offset("outer", "a")


def blob(types: bytes, text: bytes) -> bytes:
    """Return BTF of some types and names."""
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text))
    return head + types + text


def made() -> Btf:
    """Return BTF of: int; struct outer { int a; struct { int b; const inner c; }; int bits:3; }."""
    text = b"\0int\0outer\0a\0b\0c\0bits\0inner\0d\0"
    at = {name: text.index(b"\0" + name + b"\0") + 1 for name in (b"a", b"b", b"c", b"d", b"bits")}
    outer, inner = text.index(b"outer"), text.index(b"inner")
    kind_int, kind_struct, kind_const = 1 << 24, 4 << 24, 10 << 24
    types = b"".join(
        (
            struct.pack("=IIII", 1, kind_int, 4, 0x20),  # 1
            struct.pack("=III", outer, kind_struct | 3 | 1 << 31, 40),  # 2
            struct.pack("=III", at[b"a"], 1, 0),
            struct.pack("=III", 0, 3, 64),
            struct.pack("=III", at[b"bits"], 1, 3 << 24 | 256),
            struct.pack("=III", 0, kind_struct | 2, 16),  # 3
            struct.pack("=III", at[b"b"], 1, 0),
            struct.pack("=III", at[b"c"], 5, 32),
            struct.pack("=III", inner, kind_struct | 1, 8),  # 4
            struct.pack("=III", at[b"d"], 1, 32),
            struct.pack("=III", 0, kind_const, 4),  # 5
        )
    )
    return Btf(blob(types, text))


def test_offsets_through_unnamed_and_named_structs() -> None:
    """Members of an unnamed struct count as its owner's; const is looked through."""
    btf = made()

    assert btf.offset("outer", "a") == 0
    assert btf.offset("outer", "b") == 8
    assert btf.offset("outer", "c.d") == 16
    assert btf.offset("outer", "bits") == 32
    assert (btf.size("outer"), btf.size("inner")) == (40, 8)
    assert not btf.has("outer", "d")


@pytest.mark.parametrize(("name", "path"), [("none", "a"), ("outer", "z"), ("outer", "a.d")])
def test_what_is_not_there_has_no_offset(name: str, path: str) -> None:
    with pytest.raises(BtfError):
        made().offset(name, path)


@given(data=st.binary(max_size=400))
def test_any_bytes_are_btf_or_refused(data: bytes) -> None:
    """The reader ends, and says BtfError where it cannot go on."""
    for candidate in (data, blob(data, b"\0outer\0a\0")):
        try:
            Btf(candidate).offset("outer", "a")
        except BtfError:
            continue


@given(
    times=st.lists(st.integers(0, 1000), max_size=60),
    looks=st.lists(st.integers(0, 1000), max_size=10),
)
def test_window_gives_back_all_in_the_order_of_time(times: list[int], looks: list[int]) -> None:
    """Whatever comes in within the window comes out sorted, and nothing stays for ever."""
    window: Reorder[int] = Reorder(100)
    for time_ns in times:
        window.push(time_ns, time_ns)
    out = [record for look in sorted(looks) for record in window.pop(look)]
    out += window.pop(2000)

    assert out == sorted(times)


def test_window_holds_what_may_still_be_overtaken() -> None:
    """A record younger than the window waits; equal times keep the order they came in."""
    window: Reorder[str] = Reorder(10)
    for time_ns, name in ((5, "b"), (3, "a"), (5, "c"), (95, "late")):
        window.push(time_ns, name)

    assert window.pop(100) == ["a", "b", "c"]
    assert window.pop(104) == []
    assert window.pop(105) == ["late"]


@pytest.mark.parametrize("ended", ["Z", None])
def test_who_is_ending_is_waited_for(tmp_path: Path, ended: str | None) -> None:
    """Between sched_process_exit and its death a process looks alive; then it is dead or gone."""
    exiting = Stat("sh", "R", 1, 1, 1, 700, PF_EXITING)
    dead = None if ended is None else exiting._replace(state=ended)
    shown = iter([exiting, exiting, dead])
    source = arguments(tmp_path)
    source.proc = cast("ProcDirectory", SimpleNamespace(stat=lambda _pid: next(shown)))

    assert source.settled(7, exiting) is dead


def test_who_goes_on_living_is_not_waited_for(tmp_path: Path) -> None:
    """Near miss: a process that is not ending is looked at once."""
    living = Stat("sh", "S", 1, 1, 1, 700, 0)
    shown = iter([living])
    source = arguments(tmp_path)
    source.proc = cast("ProcDirectory", SimpleNamespace(stat=lambda _pid: next(shown)))

    assert source.settled(7, living) is living
