"""Keeps places at a service as another user, until stdin ends: `… hold UID GID PATH COUNT`."""

from __future__ import annotations

import socket
import sys

from tests.service.as_user import become

if __name__ == "__main__":
    _, its_uid, its_gid, path, count = sys.argv
    become(int(its_uid), int(its_gid), [])
    held = [socket.socket(socket.AF_UNIX) for _ in range(int(count))]
    for one in held:
        one.connect(path)
    print("connected", flush=True)
    sys.stdin.read()
