"""What a rule answers with, and the records that stand for a process's life."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pidtrail.events import Record
    from pidtrail.node import Node
    from pidtrail.verdict.case import Case
    from pidtrail.verdict.model import Confidence, Outcome


class Finding(NamedTuple):
    """What a rule concluded; `evidence` are the records it stands on."""

    code: str
    outcome: Outcome
    confidence: Confidence
    summary: str
    evidence: list[Record]
    unknowns: tuple[str, ...] = ()


def facts_of(node: Node) -> list[Record]:
    """Return the records that prove a process's life: birth, last title, end."""
    found: list[Record | None] = [node.fork, *node.observed[:1], *node.titles[-1:], node.exit]
    return [record for record in found if record is not None]


def runner_facts(case: Case) -> list[Record]:
    """Return the records that prove the lives of an attempt's runners."""
    return [record for member in case.runners for record in facts_of(member.node)]
