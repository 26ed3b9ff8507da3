"""Reads a value of each type from Redis and stores it again: `python -m tests.support.type_process URL NAMESPACE`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from cachebus import Cache, CacheSettings, View
from tests.support.stored_types import TABLE


def declare(cache: Cache, prefix: str, load: Callable[[int], Any]) -> list[View[[], Any]]:
    """Return a view for each type of the table; *load* brings the value of the type with that number."""
    views = []
    for at, stored in enumerate(TABLE):

        async def loaded(at: int = at) -> Any:
            return load(at)

        loaded.__annotations__["return"] = stored.declared
        views.append(cache.view(f"{prefix}:{at}:{{at}}", ttl="1m")(loaded))
    return views


async def main(url: str, namespace: str) -> None:
    """Fail where anything must be loaded."""
    async with Cache(settings=CacheSettings(url=url, namespace=namespace), never=["-*"]) as cache:
        given = [
            await view() for view in declare(cache, "given", lambda at: sys.exit(f"{TABLE[at].name} is not stored"))
        ]
        for view in declare(cache, "back", given.__getitem__):
            await view()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
