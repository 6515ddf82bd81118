"""Prints the records of a history, a JSON object each: `python told.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from pidtrail import codec
from pidtrail.history import History

for boot in History(Path(sys.argv[1])).boots():
    for event in boot.events():
        sys.stdout.buffer.write(codec.encode(event) + b"\n")
    print(*boot.problems, sep="\n", file=sys.stderr)
