"""A Celery program, its worker prefork, over a broker in Redis: `celery -A celery_program worker --concurrency 2`."""

from __future__ import annotations

import os

from celery import Celery
from counted import answer, change

app = Celery("celery_program", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.update(
    broker_connection_retry_on_startup=False,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)


@app.task
def read(user_id: int) -> dict[str, int]:
    """Return a figure."""
    return answer(user_id)


@app.task
def write(user_id: int, value: int) -> dict[str, int]:
    """Change a figure."""
    change(user_id, value)
    return answer(user_id)
