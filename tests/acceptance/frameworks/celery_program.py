"""A Celery program, its worker prefork, over a broker of files: `celery -A celery_program worker --concurrency 2`."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from counted import answer, change

QUEUE = Path(os.environ["COUNTED_FOLDER"]) / "queue"
for name in ("messages", "processed", "control"):
    (QUEUE / name).mkdir(parents=True, exist_ok=True)

app = Celery("celery_program", broker="filesystem://", backend=f"file://{QUEUE}/processed")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(QUEUE / "messages"),
        "data_folder_out": str(QUEUE / "messages"),
        "control_folder": str(QUEUE / "control"),
        "polling_interval": 0.01,
    },
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
