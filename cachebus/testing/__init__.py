"""For tests of applications that use this library. Each name is loaded when it is first used.

memory_cache(cache)     the application's own cache, without a server, empty
FakeClock()             time that jumps on command: entries expire without waiting
FaultProxy(port)        a network that delays, swallows, cuts and refuses
PrivateServer.start()   a real server to kill, pause and restart; PrivateCluster.start() a cluster of them
CacheConformance        tests that a server, or a cache made some other way, has to pass
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachebus.testing.clock import FakeClock as FakeClock
    from cachebus.testing.conformance import CacheConformance as CacheConformance
    from cachebus.testing.memory import memory_cache as memory_cache
    from cachebus.testing.proxy import FaultProxy as FaultProxy
    from cachebus.testing.server import PrivateCluster as PrivateCluster
    from cachebus.testing.server import PrivateServer as PrivateServer

_HOMES = {
    "CacheConformance": "conformance",
    "FakeClock": "clock",
    "FaultProxy": "proxy",
    "PrivateCluster": "server",
    "PrivateServer": "server",
    "memory_cache": "memory",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
