"""The health pages are reached over IPv4 and IPv6, and only where they were asked to listen."""

from __future__ import annotations

import socket

import pytest

from cachebus.errors import CannotStart
from cachebus.process import listening
from cachebus.redis.embedded.loopback import free_port
from tests.support.lacking import lacking


def reach(address: str, port: int) -> bool:
    """Return whether somebody listens there."""
    try:
        socket.create_connection((address, port)).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("host", "others"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_one_address_means_that_address(host: str, others: str) -> None:
    """HOST narrows the pages to one address."""
    if ":" in host + others and not socket.has_dualstack_ipv6():
        lacking("IPv6 on this machine")
    with listening.listen(host, 0) as opened:
        port = opened.getsockname()[1]
        assert reach(host, port)
        assert not reach(others, port)


def test_no_host_means_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOST one socket answers IPv4 and IPv6: Railway's private network is IPv6 only."""
    if not socket.has_dualstack_ipv6():
        lacking("IPv6 on this machine")
    asked: list[dict[str, object]] = []
    create = socket.create_server

    def on_loopback(address: tuple[str, int], **options: object) -> socket.socket:
        asked.append({"address": address, **options})
        return create(("127.0.0.1", 0))  # tests open nothing beyond loopback

    monkeypatch.setattr(socket, "create_server", on_loopback)
    listening.listen(None, 8080).close()
    assert asked == [{"address": ("", 8080), "family": socket.AF_INET6, "dualstack_ipv6": True}]


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_named(host: str) -> None:
    """No other port would help."""
    with pytest.raises(CannotStart, match=f"HOST: '{host}' is no address of this machine"):
        listening.refuse_taken(host, free_port())
