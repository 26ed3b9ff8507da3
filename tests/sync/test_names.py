"""`cachebus.sync` has what `cachebus` has: every public method, with the parameters and the errors of its namesake."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import cachebus.bus.publisher
import cachebus.cache.atomic.values
import cachebus.cache.cache
import cachebus.cache.view
import cachebus.limits.limiter
import cachebus.locks.held
import cachebus.locks.locks
import cachebus.pubsub.pubsub
import cachebus.sessions.store
import cachebus.sync.bus
import cachebus.sync.cache
import cachebus.sync.limits
import cachebus.sync.locks
import cachebus.sync.pubsub
import cachebus.sync.sessions
import cachebus.sync.values
import cachebus.sync.view
from cachebus import Cache, ConfigurationError, sync

TWINS = [
    (cachebus.cache.cache.Cache, cachebus.sync.cache.Cache),
    (cachebus.cache.view.View, cachebus.sync.view.View),
    (cachebus.cache.atomic.values.AtomicValues, cachebus.sync.values.AtomicValues),
    (cachebus.bus.publisher.Bus, cachebus.sync.bus.Bus),
    (cachebus.locks.locks.Locks, cachebus.sync.locks.Locks),
    (cachebus.locks.locks.Lock, cachebus.sync.locks.Lock),
    (cachebus.locks.held.HeldLock, cachebus.sync.locks.HeldLock),
    (cachebus.limits.limiter.RateLimiter, cachebus.sync.limits.RateLimiter),
    (cachebus.sessions.store.SessionStore, cachebus.sync.sessions.SessionStore),
    (cachebus.pubsub.pubsub.PubSub, cachebus.sync.pubsub.PubSub),
    (cachebus.pubsub.pubsub.Listener, cachebus.sync.pubsub.Listener),
]
INSIDE = {
    "Cache": {
        "client",
        "configure",
        "connected",
        "connection",
        "default_ttl",
        "in_process",
        "names",
        "noticed",
        "reader_here",
    },
    "View": {
        "answer",
        "decode_arguments",
        "encode_arguments",
        "held",
        "notice",
        "observed",
        "policy",
        "read_with",
        "run",
        "show_hit",
        "tag_templates",
        "take",
        "warm_with",
    },
    "Locks": {"acquire", "forget", "held_by", "release_claim", "renew", "start"},
    "HeldLock": {"doubt", "guard", "leave", "look_again", "lose", "renewed"},
    "Listener": {"call"},
}
"""What is public for other parts of the library and not for its users."""
MADE_DIFFERENTLY = {"from_env", "memory", "key"}
"""`from_env` has a timeout; `memory` and `key` are of the asynchronous cache and view."""


def public(kind: type[Any]) -> dict[str, Any]:
    """Return the methods and properties that a class shows."""
    return {
        name: member
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS, ids=[twin.__name__ for twin, _ in TWINS])
def test_every_public_method_has_a_synchronous_one(asynchronous: type[Any], synchronous: type[Any]) -> None:
    """What an application calls on the asynchronous class is there in the synchronous one, and is not async in it."""
    assert asynchronous.__name__ == synchronous.__name__
    theirs = public(synchronous)
    missing = public(asynchronous).keys() - INSIDE.get(asynchronous.__name__, set()) - theirs.keys()
    assert missing == set()
    assert [name for name, member in theirs.items() if inspect.iscoroutinefunction(member)] == []


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS, ids=[twin.__name__ for twin, _ in TWINS])
def test_parameters_are_those_of_the_asynchronous_method(asynchronous: type[Any], synchronous: type[Any]) -> None:
    """Name, kind and default of each parameter are equal: what works with `await` works without."""

    def parameters(member: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]

    theirs = public(synchronous)
    for name, member in public(asynchronous).items():
        if name in theirs and not isinstance(member, property | type) and name not in MADE_DIFFERENTLY:
            assert parameters(theirs[name]) == parameters(member), f"{asynchronous.__name__}.{name}: make forwarders"


def test_the_names_are_those_of_the_parts() -> None:
    """`from cachebus.sync import …` gives the class of each name, and no other name."""
    assert [getattr(sync, name).__name__ for name in sync.__all__] == sync.__all__
    with pytest.raises(AttributeError, match="Lokcs"):
        _ = sync.Lokcs  # type: ignore[attr-defined] # the mistake


@pytest.mark.parametrize("part", ["Bus", "Locks", "RateLimiter", "SessionStore", "PubSub"])
def test_a_part_over_the_wrong_cache_says_which_one_it_needs(part: str) -> None:
    """An asynchronous cache given to a synchronous part, and the other way round, is refused where it is made."""
    with pytest.raises(ConfigurationError, match=rf"cachebus\.sync\.{part}: .* is not a cachebus\.sync\.Cache"):
        getattr(sync, part)(Cache.memory())
    with pytest.raises(ConfigurationError, match=r"cachebus\.sync\.Locks: 'redis://' is not"):
        sync.Locks("redis://")  # type: ignore[arg-type] # the mistake


@pytest.mark.parametrize(
    "part",
    [
        cachebus.locks.locks.Locks,
        cachebus.limits.limiter.RateLimiter,
        cachebus.sessions.store.SessionStore,
        cachebus.pubsub.pubsub.PubSub,
    ],
)
@pytest.mark.parametrize("given", [sync.Cache.memory(), None, "redis://localhost"])
def test_an_asynchronous_part_over_something_else_says_what_it_needs(part: Any, given: object) -> None:
    """A synchronous cache, a URL or None is no cache, and the message names what is."""
    with pytest.raises(ConfigurationError, match=r"neither a cachebus\.Cache nor a cachebus\.Client"):
        part(given)


def test_a_cache_is_made_of_a_url_a_cache_or_the_environment() -> None:
    """Anything else is refused by name, at once."""
    assert sync.Cache("redis://localhost:6379/1").settings.url == "redis://localhost:6379/1"
    assert not sync.Cache.memory().settings.redis_enabled
    cache = Cache.memory()
    assert sync.Cache(cache).cache is cache
    for wrong in (7, cachebus.sync.cache.Cache.memory(), b"redis://"):
        with pytest.raises(ConfigurationError, match="neither a URL"):
            sync.Cache(wrong)  # type: ignore[arg-type] # the mistake
    with pytest.raises(ConfigurationError, match="timeout"):
        sync.Cache(timeout="soon")
