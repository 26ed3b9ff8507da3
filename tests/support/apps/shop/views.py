"""One view: what a customer has ordered. Counts its loads in a file, so that a test sees them across processes."""

from __future__ import annotations

import os
from pathlib import Path

from cachebus import Cache

cache = Cache.from_env()


@cache.view("orders:{customer}:total", ttl="5m", tags=["customer:{customer}"])
async def total(customer: int) -> int:
    """Return a number that a test writes into a file."""
    folder = Path(os.environ["SHOP_FOLDER"])
    with (folder / "loads").open("a", encoding="utf-8") as loads:
        loads.write(f"{os.getpid()} {customer}\n")
    stored = folder / f"total-{customer}"
    return int(stored.read_text(encoding="utf-8")) if stored.exists() else 0


async def answers() -> None:
    """Stand for `SELECT 1`: a file says that the database is down."""
    if (Path(os.environ["SHOP_FOLDER"]) / "database-down").exists():
        raise ConnectionError("the database is down")
