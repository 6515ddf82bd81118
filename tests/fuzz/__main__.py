"""
Look for inputs that break a parser: `python -m tests.fuzz [SECONDS [TARGET...]]`.

A process and some seconds for each target. What breaks one is left in build/fuzz.
Where there is no atheris (it has wheels for some interpreters only) inputs are made
by chance alone, which is said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.fuzz.targets import TARGETS

SECONDS = "10"


def main() -> int:
    """Fuzz what the arguments name and return the exit status."""
    seconds, *names = sys.argv[1:] or [SECONDS]
    broken = []
    for name in names or TARGETS:
        print(f"fuzz {name}, {seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.one", name, seconds]
        # libFuzzer ends the process at once, so what the target wrote is removed from here.
        with tempfile.TemporaryDirectory(prefix="pidtrail-fuzz-") as place:
            env = {**os.environ, "TMPDIR": place}
            if subprocess.run(command, env=env, check=False).returncode:
                broken.append(name)
    print(f"broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
