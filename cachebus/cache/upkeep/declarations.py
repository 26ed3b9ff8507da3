"""Which application declares which views in a deployment: two that declare one key share its values.

Kept in Redis for people to see: a warning at start, on the live page and by `doctor`. Never refused: while a deploy
renames a package, both names are there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cachebus.cache.upkeep.reach import Templates
from cachebus.errors import ServerError
from cachebus.redis.client import Client

log = logging.getLogger("cachebus")

LOOK_S = 10.0
"""How often a process looks whether it has declared more views; without a command where it has not."""
LEARN_S = 60.0
"""How often a process asks which views there are: what it invalidates is counted for those of others, too."""
RENEW_S = 3600.0
"""How often a process says what it declares, though nothing has changed."""
KNOWN_US = 86_400_000_000
"""A declaration nobody has renewed for a day is forgotten."""
KEPT_S = 2 * 86_400


class Declared(NamedTuple):
    """A view, as the process that declares it says."""

    template: str
    module: str
    tags: list[str]


class SharedView(NamedTuple):
    """A view that several applications declare."""

    template: str
    packages: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"view {self.template!r} is declared by {' and '.join(self.packages)}: they serve each other's values; "
            "give each application a CACHE_NAMESPACE of its own, or the views different keys"
        )


async def shared_views(client: Client) -> list[SharedView]:
    """Return the views that more than one top-level package has declared within a day. Raises: ServerError."""
    packages: dict[str, set[str]] = {}
    for view in await _known(client):
        packages.setdefault(view.template, set()).add(view.module)
    return [SharedView(name, tuple(sorted(who))) for name, who in sorted(packages.items()) if len(who) > 1]


async def known_views(client: Client) -> list[Templates]:
    """Return how each view that a process has declared within a day names its values. Raises: ServerError."""
    tags: dict[str, dict[str, None]] = {}
    for view in await _known(client):
        tags.setdefault(view.template, {}).update(dict.fromkeys(view.tags))
    return [Templates(template, tuple(found)) for template, found in sorted(tags.items())]


async def _known(client: Client) -> list[Declared]:
    oldest = client.now_us() - KNOWN_US
    members = await client.store.call("ZRANGEBYSCORE", _key(client), oldest, "+inf")
    parts = [member.decode(errors="replace").split("\n") for member in members]
    return [Declared(template, package, tags) for template, package, *tags in parts]


def package_of(module: str) -> str:
    """Return the top-level package of a module; of a program that was started as a file, the file's name."""
    if module != "__main__":
        return module.partition(".")[0]
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).partition(".")[0]
    file = str(getattr(main, "__file__", None) or "__main__")
    return file.replace("\\", "/").rpartition("/")[2].partition(".")[0]


class Declarations:
    """Says what one process declares, and learns what all do.

    Warns once of each view that another application declares too.
    """

    def __init__(
        self,
        client: Client,
        views: Callable[[], Iterable[Declared]],
        learn: Callable[[list[Templates]], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._views = views
        self._learn = learn
        self._warned: set[SharedView] = set()

    async def run(self) -> None:
        """Declare now, when there are more, and every hour; learn each minute; until cancelled."""
        declared, slept, learned = -1, 0.0, LEARN_S
        while True:
            views = list(self._views())
            try:
                if views and (len(views) != declared or slept >= RENEW_S):
                    await self.declare(views)
                    declared, slept = len(views), 0.0
                if learned >= LEARN_S:
                    self._learn(await known_views(self._client))
                    learned = 0.0
            except ServerError as unavailable:
                log.debug("views not declared: %s", unavailable)
            await asyncio.sleep(LOOK_S)
            slept, learned = slept + LOOK_S, learned + LOOK_S

    async def declare(self, views: Iterable[Declared]) -> None:
        """Say so once. Two round trips. Raises: ServerError."""
        store, key, now_us = self._client.store, _key(self._client), self._client.now_us()
        members = [
            part for name, module, tags in views for part in (now_us, "\n".join((name, package_of(module), *tags)))
        ]
        for first in range(0, len(members), 500):
            await store.call("ZADD", key, *members[first : first + 500])
        await asyncio.gather(
            store.call("ZREMRANGEBYSCORE", key, "-inf", now_us - KNOWN_US), store.call("EXPIRE", key, KEPT_S)
        )
        for shared in await shared_views(self._client):
            if shared not in self._warned:
                self._warned.add(shared)
                log.warning("%s", shared)


def _key(client: Client) -> str:
    return client.names.bus("views")
