"""For tests of applications that use this library.

    memory_cache(cache)     the application's own cache, without a server, empty
    FakeClock()             time that jumps when told: entries expire without waiting
    FaultProxy(port)        a network that delays, swallows, cuts and refuses
    CacheConformance        tests that a server, or a cache made some other way, has to pass

A real server to kill and pause is `cachebus.private_server.PrivateServer`.
"""

from cachebus.testing.clock import FakeClock
from cachebus.testing.conformance import CacheConformance
from cachebus.testing.memory import memory_cache
from cachebus.testing.proxy import FaultProxy

__all__ = ["CacheConformance", "FakeClock", "FaultProxy", "memory_cache"]
