"""Ports: opened on the addresses that were asked for, refused early where somebody else has them."""

from __future__ import annotations

import errno
import os
import socket

from cachebus.errors import CannotStart

LOOPBACK = "127.0.0.1"
NOT_HERE = (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL)
"""Errors of an address that is not this machine's, or of a name that is no address."""


def listen(host: str | None, port: int, fd: int | None = None) -> socket.socket:
    """Open the port: on *host*, or on every address, IPv6 and IPv4 on one socket where the machine has both.

    *fd*: take this open socket, which whoever started the process holds as well. Raises: OSError.
    """
    if fd is not None:
        return socket.socket(fileno=os.dup(fd))
    if host is None and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    return socket.create_server((host or "", port), family=family)


def refuse_taken(host: str | None, port: int, fd: int | None = None) -> None:
    """Try the port before anything is started. Raises: CannotStart when it cannot be opened."""
    try:
        listen(host, port, fd).close()
    except OSError as refused:
        if fd is not None:
            raise CannotStart([f"LISTEN_FD: {fd} is no open socket: {refused.strerror}; leave it unset"]) from None
        if refused.errno in NOT_HERE:
            raise CannotStart([f"HOST: {host!r} is no address of this machine: {refused.strerror}"]) from None
        raise CannotStart([f"PORT: {port} cannot be opened: {refused.strerror}; choose another port"]) from None
