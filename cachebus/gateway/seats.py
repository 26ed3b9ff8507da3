"""How many connections a gateway holds: in all, for one user, from one address. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cachebus.sessions.session import UserId


class ConnectionLimits(NamedTuple):
    """At most so many connections."""

    in_all: int = 10_000
    per_user: int = 50
    """Ten tabs on five machines."""
    per_address: int = 500
    """An office behind one address."""
    proxies: int = 0
    """Proxies of yours that each request passes: their last words on whom they heard from are believed."""


PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )
)
"""Networks behind which a platform's proxies are. Source: RFC 1918, 6598, 4193."""
USUAL = ConnectionLimits()


class NoSeat(Exception):
    """There are as many connections as there may be."""

    def __init__(self, why: str, *, everybody: bool) -> None:
        super().__init__(why)
        self.everybody = everybody
        """Whether the gateway is full, or only this user or address has too many."""


class Seat:
    """One connection, until it ends."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self.user_id: UserId | None = None

    def of(self, user_id: UserId) -> None:
        """Count it for a user too. Raises: NoSeat."""
        most = self._seats.limits.per_user
        if self._seats.by_user[user_id] >= most:
            raise NoSeat(f"this user has {most} connections already", everybody=False)
        self._seats.by_user[user_id] += 1
        self.user_id = user_id


class Seats:
    """The connections of one gateway."""

    def __init__(self, limits: ConnectionLimits = USUAL) -> None:
        self.limits = limits
        self.taken = 0
        self.by_user: Counter[UserId] = Counter()
        self.by_address: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str) -> Iterator[Seat]:
        """Count a connection from *address* for as long as the block runs. Raises: NoSeat.

        An address of a private network is a proxy's, behind which anybody may be: it has no limit of its own.
        """
        limits = self.limits
        if self.taken >= limits.in_all:
            raise NoSeat("the gateway is full; come back later", everybody=True)
        customer = "" if _is_private(address) else address
        if customer and self.by_address[customer] >= limits.per_address:
            raise NoSeat(f"this address has {limits.per_address} connections already", everybody=False)
        self.taken += 1
        self.by_address[customer] += 1
        seat = Seat(self)
        try:
            yield seat
        finally:
            self.taken -= 1
            _less(self.by_address, customer)
            if seat.user_id is not None:
                _less(self.by_user, seat.user_id)


def _less(counter: Counter[str] | Counter[UserId], key: str | int) -> None:
    counter[key] -= 1  # type: ignore[index] # both are counted the same way
    if not counter[key]:  # type: ignore[index]
        del counter[key]


def _is_private(address: str) -> bool:
    try:
        network = ipaddress.ip_network(address)
    except ValueError:  # a Unix socket: a proxy's, too
        return True
    return any(network.version == own.version and network.subnet_of(own) for own in PRIVATE)  # type: ignore[arg-type] # of one version
