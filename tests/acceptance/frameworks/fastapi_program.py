"""A FastAPI program with `def` endpoints, which run in threads beside the event loop: `uvicorn --workers 2`.

`/loop/…` is an `async def` endpoint: what has the strategy's name works there and blocks the loop meanwhile; the
library's facade refuses.
"""

from __future__ import annotations

from counted import answer, cache, change, figure_by_strategy
from fastapi import FastAPI

app = FastAPI()


@app.get("/figures/{user_id}")
def read(user_id: int) -> dict[str, int]:
    """Return a figure."""
    return answer(user_id)


@app.get("/loop/figures/{user_id}")
async def read_in_the_loop(user_id: int) -> dict[str, int | str]:
    """Return a figure, from inside the event loop."""
    try:
        cache.get("anything")
    except RuntimeError as refused:
        return {"strategy": figure_by_strategy(user_id), "refused": str(refused)}
    return {}


@app.post("/figures/{user_id}/{value}")
def write(user_id: int, value: int) -> dict[str, int]:
    """Change a figure."""
    change(user_id, value)
    return answer(user_id)
