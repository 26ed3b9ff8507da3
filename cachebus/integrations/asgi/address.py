"""Whom a request came from: the peer, or what the proxies in front of this process say, and only those. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any

from cachebus.errors import ConfigurationError

UNKNOWN = "unknown"
"""The peer of a Unix socket, where no proxy says more."""


def checked_proxies(proxies: int) -> int:
    """Return *proxies*. Raises: ConfigurationError unless it is a number of hops."""
    if type(proxies) is not int or proxies < 0:
        raise ConfigurationError(f"proxies: {proxies!r} must be how many proxies of yours each request passes")
    return proxies


def client_address(scope: dict[str, Any], proxies: int = 0) -> str:
    """Return the address of the client, as text in its one canonical form.

    *proxies* is how many proxies of yours each request passes; each appends to `X-Forwarded-For` whom it heard from.
    What is further left was written by the client and changes nothing. A request with fewer hops did not come
    through them, or its header is broken: its peer counts.
    """
    peer = scope.get("client")
    peer_address = _canonical(peer[0]) if peer else UNKNOWN
    if proxies == 0:
        return peer_address or UNKNOWN
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    hops = ",".join(lines).split(",") if lines else []
    forwarded = _canonical(hops[-proxies].strip()) if len(hops) >= proxies else None
    return forwarded or peer_address or UNKNOWN


def network_of(address: str) -> str:
    """Return what one customer of a provider has: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


def _canonical(text: str) -> str | None:
    """Return *text* as an address, without port, brackets and zone; None when it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
