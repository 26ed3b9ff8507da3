"""What each of the programs caches: a number from a file, and a note of every time it was read.

The file stands for the database that all processes share, and the notes say how often, and where, it was asked.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tradesense.caching import cache_manager, invalidate_user_cache, query_cache

FOLDER = Path(os.environ["COUNTED_FOLDER"])
SLOW_S = 0.1
"""How long the database takes: long enough for every thread to come while it does."""


@query_cache.cache_query(ttl=300)
def figure(user_id: int) -> int:
    """Read the figure from the database, and note it."""
    with (FOLDER / "loads").open("a") as notes:
        notes.write(f"{user_id} {os.getpid()}\n")
    time.sleep(SLOW_S)  # the database is slow; nothing is waited for
    return int((FOLDER / str(user_id)).read_text())


def change(user_id: int, value: int) -> None:
    """Write the figure, then make what was cached of it unreadable."""
    (FOLDER / str(user_id)).write_text(str(value))
    invalidate_user_cache(user_id)


def answer(user_id: int) -> dict[str, int]:
    """Return the figure, and which process says so."""
    return {"figure": figure(user_id), "pid": os.getpid(), "hits": int(cache_manager.get_stats()["hits"])}
