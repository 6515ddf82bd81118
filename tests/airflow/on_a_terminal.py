"""
Becomes another program that has a terminal: `on_a_terminal.py PROGRAM [ARGUMENT...]`.

The program must lead a session. It holds both ends of the terminal itself, so
that the terminal lasts as long as it does; output and input stay what they were.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios

if __name__ == "__main__":
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    os.set_inheritable(ours, True)
    os.execv(sys.argv[1], sys.argv[1:])
