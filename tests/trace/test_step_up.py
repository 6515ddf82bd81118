"""A better source that works again is taken, and nothing is missed: with the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.trace.test_step_down import shell, tell

__all__ = ["shell"]

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_bpf]
FORKS = 2_000


def test_rights_that_are_given_back_lead_to_a_better_source(
    shell: subprocess.Popen[str],
) -> None:
    """
    Programs start and end all the while, and each is told of once, by the one or the other.

    So are their births and ends, also of the moment in which both were open.
    """
    loop = f"i=0; while [ $i -lt {FORKS} ]; do /bin/true; i=$((i+1)); done; echo done"
    command = [sys.executable, "-m", "tests.trace.climbing", str(shell.pid)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        assert shell.stdout is not None
        said: Iterator[dict[str, object]] = map(json.loads, session.stdout)
        before = next(said)["source"]
        tell(shell, loop)
        session.stdin.write("regain\n")
        after = next(said)["source"]
        assert shell.stdout.readline() == "done\n"
        tell(shell, "exec sleep 0")
        shell.wait()
        session.stdin.close()
        told = next(said)["told"]
    assert isinstance(told, list)
    by_type = {
        kind: [event for event in told if event["type"] == kind]
        for kind in ("fork", "exec", "exit", "lost")
    }
    numbers = [event["seq"] for event in told]

    assert (before, after) == ("connector", "core")
    assert {event["origin"] for event in by_type["fork"]} == {"connector", "core"}
    assert by_type["lost"] == []
    assert numbers == list(range(1, len(numbers) + 1))
    for kind in ("fork", "exec", "exit"):
        pids = [event["pid"] for event in by_type[kind] if event["pid"] != shell.pid]
        assert len(pids) == FORKS, kind
        assert len(set(pids)) == FORKS, kind
