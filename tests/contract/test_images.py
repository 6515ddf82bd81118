"""What a process runs and what it calls itself."""

from __future__ import annotations

import pytest

from pidtrail.events import Exec, Title
from tests.contract.conftest import Tell

ARGV_CAPACITY = 16_384


def test_title_of_a_process_that_ends_at_once(told_by: Tell) -> None:
    """A title is read where it was just written, however soon the process is gone."""
    told = told_by("titles", "title", needs="has_titles")
    (child,) = told.born()
    assert child is not None

    title = told.only(Title, child)
    assert title.title == told.said("title")["title"]
    assert title.comm == "airflow task ru"
    assert told.life(child) == ["fork", "title", "exit", "reap"]


def test_title_longer_than_argv(told_by: Tell) -> None:
    """The setproctitle of Airflow writes on into the environment; the record has it all."""
    told = told_by("titles", "long", needs="has_titles")
    (child,) = told.born()
    assert child is not None

    assert told.only(Title, child).title == "x" * 300


def test_a_name_alone_is_no_title(told_by: Tell) -> None:
    """Prctl changes 15 bytes of comm; argv stays, so there is no title to tell."""
    told = told_by("titles", "prctl", needs="has_titles")
    (child,) = told.born()
    assert child is not None

    rename = told.only(Title, child)
    assert (rename.title, rename.comm) == (None, "renamed")


def test_ordinary_arguments(told_by: Tell) -> None:
    """Filename and argv are those of the execve, with nothing cut."""
    told = told_by("vfork_exec", needs="has_argv")

    become = told.only(Exec, told.said("child")["pid"])
    assert become.filename is not None
    assert become.filename.endswith("/vfork_exec")
    assert become.argv == [become.filename, "child"]
    assert become.argv_truncated is False
    assert become.comm == "vfork_exec"


def test_many_arguments(told_by: Tell) -> None:
    """A thousand arguments come whole."""
    told = told_by("exec_arguments", "many", needs="has_argv")

    become = told.only(Exec, told.said("child")["pid"])
    assert become.argv == ["child", *["b"] * 1000]
    assert become.argv_truncated is False


def test_huge_argument_is_cut_and_says_so(told_by: Tell) -> None:
    """More than the wire holds is cut at its end, and marked."""
    told = told_by("exec_arguments", "huge", needs="has_argv")

    become = told.only(Exec, told.said("child")["pid"])
    assert become.argv == ["child", "a" * (ARGV_CAPACITY - len("child") - 1)]
    assert become.argv_truncated is True


def test_no_arguments_at_all(told_by: Tell) -> None:
    """
    An execve without any argument is a process with one empty one.

    Since 5.18 (fs/exec.c do_execveat_common); before, argc stayed 0.
    """
    told = told_by("exec_arguments", "empty", needs="has_argv")
    child = told.said("child")

    become = told.only(Exec, child["pid"])
    assert become.argv == [""] * child["argc"]
    assert become.argv_truncated is False


def test_arguments_that_are_no_text(told_by: Tell) -> None:
    """Bytes that are not UTF-8 become U+FFFD, and the rest stays."""
    told = told_by("exec_arguments", "bytes", needs="has_argv")

    become = told.only(Exec, told.said("child")["pid"])
    assert become.argv == ["child", 'caf\ufffd \ufffd\n"']


@pytest.mark.parametrize("how", ["title", "prctl"])
def test_a_new_title_is_no_new_process(told_by: Tell, how: str) -> None:
    """A rename has the number and the start of the process that was born."""
    told = told_by("titles", how, needs="has_titles")
    (child,) = told.born()
    assert child is not None

    assert len({event.start_ns for event in told.events if event.pid == child}) == 1
