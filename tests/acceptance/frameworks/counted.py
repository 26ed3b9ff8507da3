"""What each of the programs caches: a number from a file, and a note of every time it was read.

The file stands for the database that all processes share, and the notes say how often, and by what, it was asked. It is
cached twice: by the library's facade for callers without an event loop, and under the caching strategy's name.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from cachebus import sync
from tradesense.core.cache import invalidate_user_cache, query_cache

FOLDER = Path(os.environ["COUNTED_FOLDER"])
SLOW_S = 0.1
"""How long the database takes: long enough for every thread to come while it does."""

cache = sync.Cache()


def ask(what: str, user_id: int) -> int:
    """Read the figure from the database, and note it."""
    with (FOLDER / "loads").open("a") as notes:
        notes.write(f"{what} {user_id}\n")
    time.sleep(SLOW_S)  # the database is slow; nothing is waited for
    return int((FOLDER / str(user_id)).read_text())


@cache.view("figure:{user_id}", ttl="5m", tags=["user:{user_id}"])
def figure(user_id: int) -> int:
    """Return the figure, by the facade."""
    return ask("facade", user_id)


@query_cache.cache_query(ttl=300)
def figure_by_strategy(user_id: int) -> int:
    """Return the figure, by the strategy's name."""
    return ask("strategy", user_id)


def change(user_id: int, value: int) -> None:
    """Write the figure, then make what was cached of it unreadable."""
    (FOLDER / str(user_id)).write_text(str(value))
    cache.invalidate(tags=[f"user:{user_id}"])
    invalidate_user_cache(user_id)


def answer(user_id: int) -> dict[str, int]:
    """Return the figure, twice, and which process says so."""
    return {"facade": figure(user_id), "strategy": figure_by_strategy(user_id), "pid": os.getpid()}
