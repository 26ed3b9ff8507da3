"""Names with a lone surrogate, as `json.loads` and `os.fsdecode` make them: UTF-8 cannot write them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cachebus import Bus, Cache, CacheSettings, ConfigurationError, Locks, PubSub, RateLimiter, SessionStore
from cachebus.errors import NotDelayed, PublishRefused
from cachebus.testing import memory_cache
from cachebus.testing.server import PrivateServer

BAD = "user\ud83d"
CALLS: dict[str, list[Callable[[Cache], Awaitable[object]]]] = {
    "channel": [
        lambda cache: Bus(cache).publish(BAD, {}),
        lambda cache: PubSub(cache).publish(BAD, {}),
    ],
    "id": [
        lambda cache: Bus(cache).publish("trade:updates", {}, id=BAD),
        lambda cache: Bus(cache).publish("trade:updates", {}, id=BAD, delay="1m"),
        lambda cache: Bus(cache).cancel(BAD),
    ],
    "key": [
        lambda cache: Bus(cache).publish("trade:updates", {}, key=BAD),
        lambda cache: Bus(cache).publish_many("trade:updates", [{}], key=BAD),
        lambda cache: cache.set(BAD, 1),
        lambda cache: cache.get(BAD),
        lambda cache: cache.delete(BAD),
        lambda cache: cache.invalidate(keys=BAD),
        lambda cache: RateLimiter(cache).check(BAD, limit=1, window="1m"),
    ],
    "tag": [
        lambda cache: cache.set("k", 1, tags=[BAD]),
        lambda cache: cache.invalidate(tags=BAD),
    ],
    "prefix": [lambda cache: cache.invalidate(prefix=f"{BAD}:")],
    "name": [
        lambda cache: Locks(cache).holder(BAD),
        lambda cache: Locks(cache).lock(BAD).acquire(),
        lambda cache: Locks(cache).unlock(BAD, 1),
    ],
    "user_id": [lambda cache: SessionStore(cache).create(BAD)],
}


@pytest.fixture(params=["server", "process"])
async def cache(request: pytest.FixtureRequest, server: PrivateServer, namespace: str) -> AsyncIterator[Cache]:
    """A cache on a server, and one of a process without it."""
    settings = CacheSettings(url=server.url, namespace=namespace)
    async with Cache(settings=settings) if request.param == "server" else memory_cache() as cache:
        yield cache


async def test_a_lone_surrogate_is_refused_in_one_line_that_names_the_field(cache: Cache) -> None:
    """Not by an error of the codec somewhere on its way to the server."""
    for field, calls in CALLS.items():
        for call in calls:
            with pytest.raises((ConfigurationError, PublishRefused, NotDelayed), match=rf"^{field}: .*'user\\ud83d"):
                await call(cache)


async def test_a_view_refuses_one_in_its_key(cache: Cache) -> None:
    """As it does objects that no key can hold."""

    @cache.view("profile:{name}", ttl="1m", tags=["user:{name}"])
    async def profile(name: str) -> str:
        return name

    with pytest.raises(TypeError, match=r"parameter 'name': 'user\\ud83d' cannot be part of a key: .* lone surrogate"):
        await profile(BAD)
