"""What contexts have counted, in Redis: one hash a day, `{ns}:follow:<day>`, which names templates and nothing else.

Beside each entry that was loaded ahead lies why, as long as the entry lives.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

import msgspec

from cachebus.cache.foresight.prediction.contexts import Context
from cachebus.cache.foresight.prediction.decision import Totals
from cachebus.redis.client import Client

KEPT_S = 8 * 86_400
MOST_CONTEXTS = 5_000
"""In one day's hash, about 600 KB."""
CONTEXTS_A_CALL = 140
"""A script takes at most 1,000 arguments."""


class LoadedAhead(msgspec.Struct, frozen=True):
    """Why an entry was loaded ahead."""

    context: str
    """Its name."""
    chance: float
    outcomes: int
    """Of the context, the newest counting most; at most 300."""
    within_s: float
    """The read was expected within this time."""
    used: bool = False

    def __str__(self) -> str:
        context = Context.named(self.context)
        within = f"{self.within_s:g} s" if self.within_s < 120 else f"{self.within_s / 60:g} min"
        used = "used" if self.used else "not used yet"
        return f"{context or self.context}: {self.chance * 100:.0f} % of {self.outcomes} within {within}; {used}"


def days_of(client: Client) -> tuple[str, str]:
    """Return the names of today and yesterday, by the server's time in UTC."""
    now = datetime.datetime.fromtimestamp(client.now_us() / 1_000_000, datetime.UTC)
    return f"{now:%Y-%m-%d}", f"{now - datetime.timedelta(days=1):%Y-%m-%d}"


async def add_follows(client: Client, day: str, counts: Mapping[Context, Totals]) -> None:
    """Add to a day. One round trip for 140 contexts. Raises: ServerError."""
    rows = [(context.name, *totals) for context, totals in counts.items()]
    for first in range(0, len(rows), CONTEXTS_A_CALL):
        flat = [part for row in rows[first : first + CONTEXTS_A_CALL] for part in row]
        await client.store.run(
            "cache/foresight/prediction/add_follows", (_key(client, day),), (KEPT_S, MOST_CONTEXTS, *flat)
        )


async def read_follows(client: Client, day: str) -> dict[str, Totals]:
    """Return what all processes have counted on a day, by name of the context. One round trip. Raises: ServerError."""
    reply = await client.store.call("HGETALL", _key(client, day), timeout_s=2.0)
    pairs = zip(reply[::2], reply[1::2], strict=True)
    found = {name.decode(errors="replace"): Totals.parsed(text) for name, text in pairs}
    return {name: totals for name, totals in found.items() if totals is not None}


async def reset_follows(client: Client, view: str) -> int:
    """Forget what was learnt of reads of *view*, everywhere; returns how many contexts. Raises: ServerError."""
    reset = set[str]()
    for day in days_of(client):
        names = await client.store.call("HKEYS", _key(client, day), timeout_s=2.0)
        gone = [name for name in (each.decode(errors="replace") for each in names) if _expects(name, view)]
        for first in range(0, len(gone), 500):
            await client.store.call("HDEL", _key(client, day), *gone[first : first + 500])
        reset.update(gone)
    return len(reset)


async def note_reasons(client: Client, reasons: Iterable[tuple[str, LoadedAhead, int]]) -> None:
    """Lay beside each entry why it was loaded, for so many milliseconds. Raises: ServerError."""
    for entry, reason, life_ms in reasons:
        name = client.names.ahead(entry)
        await client.entries.call("SET", name, msgspec.json.encode(reason), "PX", life_ms, key=name)


async def reason_of(client: Client, entry: str) -> LoadedAhead | None:
    """Return why an entry was loaded ahead, None where it was not. Raises: ServerError."""
    name = client.names.ahead(entry)
    return decoded_reason(await client.entries.call("GET", name, key=name))


def decoded_reason(reply: bytes | None) -> LoadedAhead | None:
    """Return what lies beside an entry, None where nothing does, or what another version has laid there."""
    try:
        return msgspec.json.decode(reply, type=LoadedAhead) if reply is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _expects(name: str, view: str) -> bool:
    context = Context.named(name)
    return context is not None and context.then == view


def _key(client: Client, day: str) -> str:
    return client.names.bus("follow", day)
