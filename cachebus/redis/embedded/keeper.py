"""Keeps one server running for as long as anybody uses it, and not a moment longer.

A program of its own, started by `local_server` in the server's directory. It imports nothing but what Python has built
in, so that it runs 15 ms after it was asked for. Whoever uses the server holds a shared lock on the file `users`; the
kernel gives that lock back however its holder ends, kill -9 included. The keeper waits for the exclusive lock: to get
it means that nobody is left. Should the keeper itself be killed, Linux tells the server to stop (PR_SET_PDEATHSIG);
macOS has no such thing, there the server would run on, be found and used by the next user, and end with `kill`.

Arguments: lock file descriptor, "keep" or "discard", kind, port, command. Keep: data are precious, a server that dies
by itself is started again. Discard: it is left dead, and when nobody is left the directory is removed.
The lock on the file `address` comes from whoever started the keeper, and the server inherits it: while that lock is
held, by starter, keeper or server, nobody else starts a server on the same data.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import os
import sys
import time

TERM, KILL = 15, 9  # the module `signal` alone would double the keeper's start-up time
PR_SET_PDEATHSIG = 1
GRACE_S = 5.0
"""How long a server may take to write its data and leave before it is killed."""
STEADY_S = 1.0
"""A server that dies younger than this would die again: bad data, bad configuration."""


class Keeper:
    """One server process, started, watched and stopped."""

    def __init__(self, address: int, kind: str, port: int, command: list[str]) -> None:
        self._address = address
        self._kind = kind
        self._port = port
        self._command = command
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._server = 0
        self._abandoned = False

    def keep(self, *, discard: bool) -> None:
        """Run the server until nobody uses it, or until it ends by itself; unless *discard*, not if it was steady."""
        self._start()
        _thread.start_new_thread(self._stop_when_unused, ())
        while True:
            began = time.monotonic()
            self._wait()
            os.ftruncate(self._address, 0)
            if self._abandoned or discard or time.monotonic() - began < STEADY_S:
                break
            self._start()
        if self._abandoned and discard:
            _remove_directory()

    def _start(self) -> None:
        keeper = os.getpid()
        self._server = os.fork()
        if self._server == 0:
            self._become_server(keeper)
        address = f'{{"kind": "{self._kind}", "port": {self._port}, "pid": {self._server}}}\n'
        os.pwrite(self._address, address.encode(), 0)

    def _become_server(self, keeper: int) -> None:
        try:
            os.dup2(2, 1)  # standard error is the log file, standard output the starter's pipe
            if self._libc is not None:
                self._libc.prctl(PR_SET_PDEATHSIG, TERM)
                if os.getppid() != keeper:
                    os._exit(1)
            os.execv(self._command[0], self._command)  # noqa: S606  # the command is ours, no shell wanted
        except OSError as error:
            os.write(2, f"cannot run {self._command[0]}: {error.strerror}\n".encode())
            os._exit(127)

    def _wait(self) -> None:
        try:
            os.waitpid(self._server, 0)
        except ChildProcessError:
            return  # the starter ignores SIGCHLD and so do we, then: the wait lasted as long as the server all the same

    def _stop_when_unused(self) -> None:
        users = os.open("users", os.O_RDWR)
        fcntl.flock(users, fcntl.LOCK_EX)
        self._abandoned = True
        self._signal(TERM)
        time.sleep(GRACE_S)  # the process ends, and this thread with it, as soon as the server has
        self._signal(KILL)

    def _signal(self, number: int) -> None:
        try:
            os.kill(self._server, number)
        except ProcessLookupError:
            return


def _remove_directory() -> None:
    import shutil  # noqa: PLC0415  # costs 10 ms, which no start-up should pay

    shutil.rmtree(os.getcwd(), ignore_errors=True)  # noqa: PTH109  # so would pathlib


def main() -> None:
    """Leave the starter's process tree, so that nothing it does to its children touches the server, and keep."""
    if os.fork():
        os._exit(0)
    address, fate, kind, port, *command = sys.argv[1:]
    Keeper(int(address), kind, int(port), command).keep(discard=fate == "discard")
    os._exit(0)  # not waiting for the thread


if __name__ == "__main__":
    main()
