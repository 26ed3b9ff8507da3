"""What the page writes. Each change is one transaction that holds the event as well; then, at once:

invalidate   from here on nobody reads the old figures, whatever becomes of the rest
publish      the same event under the same id, so that windows hear of it now: a relay looks once a second on SQLite
answer       `Fresh-After` says since when: what this browser asks next is no older

Redis being down keeps no trade from being recorded: the event waits in the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from cachebus import Bus, LockNotAcquired, Locks, PublishRefused, ServerError
from cachebus.errors import LockUnavailable
from tradesense import importing, recording
from tradesense.events import SettingsEvent, TradeEvent
from tradesense.importing import MOST_BYTES, FileRefused
from tradesense.recording import AlreadyImported, Order
from tradesense.results import CostBasis, Grouping
from tradesense.views import cache, reference_data
from tradesense.web.sign_in import SignedIn

HURRY = "250ms"
"""How long to try to publish what the outbox holds anyway."""
LEASE = "10s"
"""An import whose process was killed keeps the next one of that user waiting no longer."""

Step = dict[str, Any]

bus, locks = Bus(cache), Locks(cache)
_under_way: set[asyncio.Task[None]] = set()
"""Imports: the event loop keeps no task that nobody else does."""
router = APIRouter(prefix="/api")


class Ticket(BaseModel):
    """A trade, as the form sends it. What it may be, `recording` says."""

    symbol: str
    side: str
    quantity: int
    price: str
    fee: str = "1.00"
    at: datetime.datetime | None = None


class Changes(BaseModel):
    """Settings to be changed; what is left out stays."""

    time_zone: str | None = None
    grouping: Grouping | None = None
    cost_basis: CostBasis | None = None
    risk_free_rate: float | None = None
    theme: Literal["light", "dark"] | None = None


@router.post("/trades", status_code=201)
async def record(user_id: SignedIn, ticket: Ticket, response: Response) -> dict[str, int]:
    """Record a trade."""
    event_id = secrets.token_hex(16)
    with refusals():
        trade_id = await recording.record_trade(user_id, **ticket.model_dump(), announce=event_id)
    event = TradeEvent(user_id, "new_trade", trade_id, ticket.symbol)
    response.headers["Fresh-After"] = await announced("trade:updates", event, event_id)
    return {"trade_id": trade_id}


@router.patch("/settings", status_code=204)
async def change_settings(user_id: SignedIn, changes: Changes, response: Response) -> None:
    """Change some settings: figures are kept by the settings they were computed for, so none of them becomes old."""
    wanted = {name: value for name, value in changes.model_dump(mode="json").items() if value is not None}
    event_id = secrets.token_hex(16)
    with refusals():
        await recording.change_settings(user_id, **wanted, announce=event_id)
    event = SettingsEvent(user_id, tuple(wanted))  # type: ignore[arg-type] # change_settings knows them
    response.headers["Fresh-After"] = await announced("settings:updates", event, event_id)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Answer with 422 what cannot be recorded; the reason begins with the field."""
    try:
        yield
    except ValueError as refused:
        raise HTTPException(422, str(refused)) from None


async def announced(channel: str, event: TradeEvent | SettingsEvent, event_id: str) -> str:
    """Say what was committed, without waiting for the relay; returns since when reads see it."""
    user, what = f"user:{event.user_id}", "settings" if isinstance(event, SettingsEvent) else "trades"
    clock = await cache.invalidate(tags=[f"{user}:{what}"])
    with contextlib.suppress(ServerError, PublishRefused):  # the outbox holds it
        await bus.publish(channel, event, key=user, id=event_id, timeout=HURRY)
    return clock


# -- imports --------------------------------------------------------------------------------------------------------


@router.post("/imports")
async def import_file(request: Request, user_id: SignedIn) -> Response:
    """Import a CSV file of trades, whole or not at all; the answer is a line of JSON for each step.

    It goes on when the browser goes away. 409: another import of this user is under way. 422: `problems`, each with
    row and field.
    """
    file = await _body(request)
    symbols = {each.symbol for each in (await reference_data()).instruments}
    try:
        orders = await asyncio.to_thread(importing.parse, file, symbols)
    except FileRefused as refused:
        rows = [{"row": each.row, "field": each.field, "what": each.what} for each in refused.problems]
        return JSONResponse({"detail": str(refused.problems[0]), "problems": rows}, 422)
    steps: asyncio.Queue[Step | None] = asyncio.Queue()
    work = asyncio.create_task(_import(user_id, orders, steps.put_nowait))
    _under_way.add(work)
    work.add_done_callback(_under_way.discard)
    work.add_done_callback(lambda _: steps.put_nowait(None))
    first = await steps.get() or {}
    if "status" in first:
        raise HTTPException(first["status"], first["failed"])

    async def lines() -> AsyncIterator[bytes]:
        step: Step | None = first
        while step is not None:
            yield msgspec.json.encode(step) + b"\n"
            step = await steps.get()

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def _import(user_id: int, orders: list[Order], say: Callable[[Step], None]) -> None:
    """Import, one at a time for a user, and say how far it is; the last step says how it ended."""
    total, event_id = len(orders), secrets.token_hex(16)
    try:
        async with locks.lock(f"import:user:{user_id}", timeout=LEASE, blocking_timeout=0):
            say({"checked": total})
            await recording.import_trades(
                user_id,
                orders,
                once=importing.name_of(orders),
                announce=event_id,
                progress=lambda written: say({"written": written, "of": total}),
            )
        event = TradeEvent(user_id, "import_completed")
        say({"imported": total, "fresh_after": await announced("trade:updates", event, event_id)})
    except AlreadyImported as before:
        say({"failed": str(before), "before": before.trades})
    except LockNotAcquired:
        say({"status": 409, "failed": "another import of yours is under way; wait until it is done"})
    except LockUnavailable:
        say({"status": 503, "failed": "Redis is down, and imports take a lock there; try again when it is back"})
    except Exception:  # the lock may be lost just after COMMIT
        say({"failed": "it was interrupted: all was recorded, or nothing; send it again, it is never there twice"})
        raise


async def _body(request: Request) -> bytes:
    """Return what was sent. Raises: HTTPException 413 for more than any import may be."""
    file = bytearray()
    async for part in request.stream():
        file += part
        if len(file) > MOST_BYTES:
            raise HTTPException(413, f"the file is larger than {MOST_BYTES // 1_000_000} MB; split it")
    return bytes(file)
