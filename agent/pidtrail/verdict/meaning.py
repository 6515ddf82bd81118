"""What a verdict code means: the parts of its rule's docstring."""

from __future__ import annotations

import inspect
import re
from typing import Final

import msgspec

from pidtrail.errors import PidtrailError
from pidtrail.verdict.rules import RULES, code_of

PARTS: Final = re.compile(r"^(?:Concludes|Needs|Cannot tell): ", re.MULTILINE)


class Meaning(msgspec.Struct, frozen=True):
    """
    What `explain --code` tells of a code.

    `text` is for people, as it stands in the docstring; the others are its parts, each a line.
    """

    code: str
    says: str
    concludes: str
    needs: str
    cannot_tell: str
    text: str
    schema: str = "pidtrail.code/1"


def meaning(code: str) -> Meaning:
    """Return what a verdict code means. Raises PidtrailError for a code that is none."""
    for rule in RULES:
        if code_of(rule) == code:
            text = inspect.getdoc(rule) or ""
            said, concludes, needs, cannot_tell = (" ".join(p.split()) for p in PARTS.split(text))
            return Meaning(code, said, concludes, needs, cannot_tell, f"{code}\n\n{text}")
    codes = ", ".join(code_of(rule) for rule in RULES)
    raise PidtrailError(f"no verdict has the code {code}", f"there are: {codes}")
