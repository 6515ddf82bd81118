"""
The form of a lab result, schema `pidtrail.lab/1`.

`claim` is what the experiment expects of the kernel, in one sentence, and `holds`
says whether it was so. A result that was not had is `skipped` with the reason, and
then says nothing about the kernel: `holds` is None.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import msgspec

LAB_SCHEMA: Final = "pidtrail.lab/1"

Family = Literal["keeps", "new", "numbers", "reused"]
"""
Why two numbers are equal or not: the process `keeps` its PID, it is a `new` process,
it has several `numbers` at once, or a number is `reused`.
"""


class Identity(msgspec.Struct, frozen=True):
    """
    Who a process is, at one instant.

    `pid` is the number that one would compare, in the PID namespace `pid_ns`;
    that is the lab's own but where an experiment says otherwise. `ns_pids` are
    all its numbers, outermost first. `pidfs_inode` is unique for one boot (Linux
    6.9 and later). `ppid` and `tracer` are numbers in the lab's namespace.
    """

    pid: int
    pid_ns: int | None = None
    start_ticks: int | None = None
    start_ns: int | None = None
    pidfs_inode: int | None = None
    ns_pids: list[int] | None = None
    ppid: int | None = None
    tids: list[int] | None = None
    pgid: int | None = None
    sid: int | None = None
    uid: int | None = None
    tracer: int | None = None
    comm: str | None = None
    at_ns: int | None = None


class Expected(msgspec.Struct, frozen=True):
    """
    What the kernel is expected to do.

    `pid_changed`: the number after is another than before. `same_process`: both
    are one process by start time and pidfs inode. `parent_changed`: one of the
    two got another parent than it was born of. `also` is what else was checked.
    """

    pid_changed: bool
    same_process: bool
    parent_changed: bool
    also: list[str] = []


class Check(NamedTuple):
    """Something that was expected, in words, and whether it was so."""

    text: str
    holds: bool


class Result(msgspec.Struct, frozen=True):
    """
    What came of one experiment.

    `exercised` counts records and the kernel's own counters; `evidence` are the
    records themselves, as in an export, and of many alike the first and last
    ones. `contradicted` lists what was expected and not so.
    """

    name: str
    family: Family
    claim: str
    exercised: dict[str, int]
    before: Identity | None
    after: Identity | None
    pid_changed: bool | None
    same_process: bool | None
    parent_changed: bool | None
    expected: Expected
    holds: bool | None
    contradicted: list[str]
    conclusion: str
    evidence: list[dict[str, Any]]
    skipped: str | None
    headline: str = ""
    notes: list[str] = []
    seconds: float | None = None


class ClaimAnswer(msgspec.Struct, frozen=True):
    """One claim of the article, what this kernel says to it, and by which experiments."""

    claim: str
    answer: Literal["refuted", "true", "half true", "contradicted", "not tested"]
    sentence: str
    experiments: list[str]


class LabReport(msgspec.Struct, frozen=True):
    """What `lab --json` prints; `holds` is False if any result contradicts its expectation."""

    results: list[Result]
    claims: list[ClaimAnswer]
    holds: bool
    schema: str = LAB_SCHEMA
    version: str | None = None
    host: str | None = None
    kernel: str | None = None
    boot_id: str | None = None
    source: str | None = None
    refused: dict[str, str] = {}
    seconds: float | None = None
