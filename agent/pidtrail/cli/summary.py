"""The end of `trace`: who reads slowly gets the rest, and what was recorded is judged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pidtrail.cli.logs import log

if TYPE_CHECKING:
    from pidtrail.runtime import Session
    from pidtrail.sinks.feed import Feed

MAX_SHOWN_EVENTS: Final = 300_000
"""The tree is for people; beyond this it is too long to read and slow to make."""
WAIT_SECONDS: Final = 0.2


def wait_for_reader(feed: Feed, is_over: Callable[[], bool]) -> None:
    """
    Wait for who reads stdout slowly, at the end of a feed.

    Raises KeyboardInterrupt when there is somebody to wait for and that is over, and OSError
    if he is gone.
    """
    outlet, told = feed.outlet, False
    while not outlet.finished(WAIT_SECONDS):
        if is_over():
            raise KeyboardInterrupt
        if not told:
            told = True
            log.info("waiting for the reader of stdout; Ctrl-C ends that", bytes=outlet.held)
    feed.check()


def print_verdicts(path: Path, session: Session, *, to_stderr: bool) -> None:
    """Judge a recording and print tree and verdicts; where stdout is for events, on stderr."""
    from pidtrail.correlate import gather
    from pidtrail.reports.process import labels_of
    from pidtrail.reports.text import print_report, print_tree
    from pidtrail.sources.replay import Replay
    from pidtrail.verdict.engine import judge_stream

    file = sys.stderr if to_stderr else sys.stdout
    if not to_stderr and session.events <= MAX_SHOWN_EVENTS:
        replay = Replay(str(path))
        tree, reports, facts, *_ = gather(replay.events())
        print_tree(tree, replay.header, file=file, labels=labels_of(tree, reports, facts))
    replay = Replay(str(path))
    report = judge_stream(replay.header, replay.events(), problems=list(session.problems()))
    print_report(report, file=file)
