"""
Runs the command line as another user: `python -m tests.service.as_user UID GID GROUPS ARGUMENT...`.

GROUPS are numbers with commas between. What is needed for `--json` is imported before, for a
checkout need not be readable by everybody.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from pidtrail.cli import main


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Be this user, for good."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


if __name__ == "__main__":
    for command in ("explain", "tree"):
        import_module(f"pidtrail.cli.{command}")
    _, its_uid, its_gid, its_groups, *arguments = sys.argv
    become(int(its_uid), int(its_gid), [int(one) for one in its_groups.split(",") if one])
    main(arguments)
