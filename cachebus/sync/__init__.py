"""The library for programs without an event loop, under the same names: `from cachebus.sync import Cache, Locks`.

Each name is loaded when it is first used, as those of `cachebus` are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachebus.sync.bus import Bus as Bus
    from cachebus.sync.cache import Cache as Cache
    from cachebus.sync.limits import RateLimiter as RateLimiter
    from cachebus.sync.locks import Locks as Locks
    from cachebus.sync.pubsub import PubSub as PubSub
    from cachebus.sync.sessions import SessionStore as SessionStore
    from cachebus.sync.values import AtomicValues as AtomicValues

_HOMES = {
    "Cache": "cachebus.sync.cache",
    "AtomicValues": "cachebus.sync.values",
    "Bus": "cachebus.sync.bus",
    "Locks": "cachebus.sync.locks",
    "RateLimiter": "cachebus.sync.limits",
    "SessionStore": "cachebus.sync.sessions",
    "PubSub": "cachebus.sync.pubsub",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used. Source: PEP 562."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cachebus.sync' has no attribute {name!r}")
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
