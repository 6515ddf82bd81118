"""
The lab's puppet: a small process that does what the lab tells it, and nothing else.

Run as `python -I -S child.py FD`, with the standard library alone. FD is one end of
a SOCK_SEQPACKET pair; each message is a JSON object, `do` names a method of Puppet.
What it answers is never evidence: that comes from the kernel. When the lab is gone,
however it ended, the read returns nothing and the puppet exits.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import threading
from typing import Any, Final, NoReturn

PAGE: Final = mmap.PAGESIZE
MADV_RANDOM: Final = 1
MADV_PAGEOUT: Final = 21
CLONE_NEWPID: Final = 0x2000_0000
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
ARG_START, ARG_END = 45, 46
"""Of the fields of /proc/self/stat after the comm (proc_pid_stat(5) 48 and 49)."""


class Puppet:
    """One process; a fork makes another one with a channel of its own."""

    def __init__(self, fd: int) -> None:
        self.channel = socket.socket(fileno=fd)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.go = threading.Event()
        self.kept: list[Any] = []

    def serve(self) -> NoReturn:
        """Say hello, then do what is asked until nobody asks any more."""
        self.say({"hello": os.getpid()})
        while True:
            data, fds, _, _ = socket.recv_fds(self.channel, 65_536, 4)
            if not data:
                os._exit(0)
            request = json.loads(data)
            method = getattr(self, request.pop("do"))
            try:
                self.say({"answer": method(*fds, **request)})
            except (OSError, ValueError) as error:
                number = error.errno if isinstance(error, OSError) else None
                self.say({"error": str(error), "errno": number})

    def say(self, message: dict[str, Any]) -> None:
        """Send one message; a lab that is gone hears nothing."""
        try:
            self.channel.send(json.dumps(message).encode())
        except OSError:
            os._exit(0)

    def check(self, result: int) -> int:
        """Return what a C function returned. Raises OSError if that was -1."""
        if result == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    # --- other processes ---

    def take(self, fd: int) -> NoReturn:
        """Be a new puppet, on its own channel: what a forked child does."""
        self.channel.close()
        self.channel = socket.socket(fileno=fd)
        self.serve()

    def fork(self, fd: int) -> int:
        """Make another puppet by forking."""
        pid = os.fork()
        if pid == 0:
            self.take(fd)
        os.close(fd)
        return pid

    def forks(self, count: int) -> int:
        """Fork so many children that end at once, one after another, and collect them."""
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        return count

    def fork_until(self, fd: int, number: int, limit: int) -> int:
        """Fork until a child gets this number; that one lives on as a puppet."""
        for count in range(1, limit + 1):
            pid = os.fork()
            if pid == 0:
                if os.getpid() == number:
                    self.take(fd)
                os._exit(0)
            if pid == number:
                os.close(fd)
                return count
            os.waitpid(pid, 0)
        raise ValueError(f"number {number} did not come back in {limit} forks")

    def vfork_exec(self, fd: int) -> int:
        """Start a puppet as subprocess does: vfork, then execve."""
        import subprocess  # noqa: PLC0415 (takes as long to load as all else together)

        started = subprocess.Popen(command(fd), pass_fds=[fd])  # noqa: S603 (this very file)
        self.kept.append(started)
        os.close(fd)
        return started.pid

    def posix_spawn(self, fd: int) -> int:
        """Start a puppet as the C library does, in one call."""
        os.set_inheritable(fd, True)  # noqa: FBT003 (os names it so)
        pid = os.posix_spawn(sys.executable, command(fd), os.environ)
        os.close(fd)
        return pid

    def wait(self) -> list[int]:
        """Collect a child, and return its number and status."""
        return list(os.waitpid(-1, 0))

    def exit(self, code: int) -> NoReturn:
        """End."""
        os._exit(code)

    # --- other programs ---

    def again(self) -> NoReturn:
        """Execute this very program anew."""
        fd = self.channel.fileno()
        os.set_inheritable(fd, True)  # noqa: FBT003
        os.execv(sys.executable, command(fd))  # noqa: S606 (the point of it)

    def thread(self) -> int:
        """Start a thread that will execute this program, and return its tid."""
        thread = threading.Thread(target=self.again_on_go, daemon=True)
        thread.start()
        assert thread.native_id is not None  # noqa: S101 (it has started)
        return thread.native_id

    def again_on_go(self) -> None:
        """Wait for the word, then execve: what the thread does."""
        self.go.wait()
        self.again()

    def again_from_thread(self) -> NoReturn:
        """Let the thread execute this program."""
        self.go.set()
        while True:
            signal.pause()

    def become(self, *fds: int, argv: list[str]) -> NoReturn:
        """Execute another program in a session of its own, with a terminal if one came along."""
        if fds:
            os.login_tty(fds[0])
        else:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
        os.execvp(argv[0], argv)  # noqa: S606 (the lab chose it)

    # --- where it runs ---

    def flip(self, cpus: list[int], count: int) -> None:
        """Move to another CPU so many times: each call leaves it no other choice."""
        for turn in range(count):
            os.sched_setaffinity(0, {cpus[turn % len(cpus)]})

    def flip_threads(self, cpus: list[int], count: int, threads: int) -> None:
        """Do so in several threads at once: affinity belongs to a thread."""
        movers = [threading.Thread(target=self.flip, args=(cpus, count)) for _ in range(threads)]
        for mover in movers:
            mover.start()
        for mover in movers:
            mover.join()

    def ping(self, rounds: int) -> None:
        """Play ping-pong with a forked partner over two pipes: each waits for the other."""
        there_read, there = os.pipe()
        back_read, back = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(there)
            while os.read(there_read, 1):
                os.write(back, b"o")
            os._exit(0)
        for _ in range(rounds):
            os.write(there, b"i")
            os.read(back_read, 1)
        os.close(there)
        os.waitpid(pid, 0)

    # --- memory ---

    def page_out(self, *fds: int, pages: int, rounds: int) -> None:
        """Let the kernel write a mapping out and drop it, then touch each page, again and again."""
        memory = mmap.mmap(fds[0] if fds else -1, pages * PAGE)
        memory.madvise(MADV_RANDOM)  # no read-ahead: each page is a fault of its own
        for page in range(pages):
            memory[page * PAGE] = 1
        for _ in range(rounds):
            memory.flush()
            memory.madvise(MADV_PAGEOUT)
            touch(memory)
        memory.close()

    def fsync(self, fd: int) -> None:
        """Have a file written to the disk."""
        os.fsync(fd)
        os.close(fd)

    def drop(self, fd: int) -> None:
        """Let the kernel forget what it holds of a file in memory."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def read_through(self, fd: int, size: int, rounds: int) -> None:
        """Touch each page of a mapped file, again and again."""
        memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        memory.madvise(MADV_RANDOM)
        for _ in range(rounds):
            touch(memory)
        memory.close()

    # --- what it is called and whose it is ---

    def sign(self, name: str) -> None:
        """Rename the task alone: a sign of life that the kernel reports."""
        self.libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)

    def title(self, text: str) -> None:
        """Rename as setproctitle(3) does: over argv, then the task."""
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
        start, end = int(fields[ARG_START]), int(fields[ARG_END])
        ctypes.memmove(
            start, text.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start
        )
        self.sign(text[:15])

    def setpgid(self, group: int) -> None:
        """Join a process group, or with 0 found one."""
        os.setpgid(0, group)

    def setsid(self) -> None:
        """Found a session."""
        os.setsid()

    def setuid(self, uid: int) -> None:
        """Become another user for good."""
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    def subreaper(self) -> None:
        """Ask to adopt all orphans below."""
        self.check(self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))

    def unshare_pid(self) -> None:
        """Let the next child be the first of a new PID namespace."""
        self.check(self.libc.unshare(CLONE_NEWPID))

    def pid_max(self, highest: int) -> None:
        """Limit the numbers of our own PID namespace: a sysctl of who opens it (since 6.14)."""
        with open("/proc/sys/kernel/pid_max", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(str(highest))

    def number(self) -> int:
        """Return the number that this process itself sees."""
        return os.getpid()

    def raise_signal(self, sig: int) -> None:
        """Send a signal to ourselves."""
        os.kill(os.getpid(), sig)


def touch(memory: mmap.mmap) -> None:
    """Read one byte of each page."""
    for at in range(0, len(memory), PAGE):
        memory[at]


def command(fd: int) -> list[str]:
    """Return the command line of a puppet on this channel."""
    return [sys.executable, "-I", "-S", __file__, str(fd)]


def main() -> NoReturn:
    """Be a puppet; Ctrl-C is for the lab to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Who starts the lab may ignore it, and that outlives execve; then nobody could be collected.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    Puppet(int(sys.argv[1])).serve()


if __name__ == "__main__":
    main()
