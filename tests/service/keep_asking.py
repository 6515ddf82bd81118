"""Serves a history as another user, until stdin ends: `… keep_asking UID GID FOLDER PATH GROUP`."""

from __future__ import annotations

import sys
from pathlib import Path

from pidtrail.service.server import Server
from tests.service.as_user import become

if __name__ == "__main__":
    _, its_uid, its_gid, folder, path, group = sys.argv
    become(int(its_uid), int(its_gid), [])
    server = Server(path, Path(folder), group=group)
    server.start()
    print(*server.problems(), sep="\n", flush=True)
    sys.stdin.read()
    server.stop()
