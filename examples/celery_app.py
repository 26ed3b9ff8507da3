"""Celery: a task changes data, invalidates and publishes. `celery -A examples.celery_app worker`.

The cache exists before the pool forks; each process connects when it first uses it.
"""

from __future__ import annotations

import os

from celery import Celery

from cachebus.sync import Bus, Cache

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("imports", broker=REDIS, backend=REDIS)
cache = Cache.from_env()
bus = Bus(cache)


@app.task
def import_orders(user_id: int, count: int) -> dict[str, int]:
    """Write and commit; then invalidate what was computed of it, and tell."""
    cache.invalidate(tags=[f"user:{user_id}"])
    bus.publish("orders:imported", {"user_id": user_id, "count": count}, key=f"user:{user_id}")
    return {"pid": os.getpid(), "count": count}
