"""One event's life: published, waited, handled, what that made old, whom it was told to, and when it was read fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from cachebus.bus.engine.run_log import RememberedRun
from cachebus.bus.feed import RECORDS_A_READ
from cachebus.cache.cache import Cache
from cachebus.cache.tiers.entry import FIRST_BYTES, stub
from cachebus.cache.upkeep.answers import ask
from cachebus.errors import ConfigurationError
from cachebus.freshness.clock import parse_clock
from cachebus.freshness.scopes import scopes_of
from cachebus.monitoring.event_lookup import FoundEvent, find_events
from cachebus.monitoring.inspection import stored
from cachebus.monitoring.sockets import open_sockets
from cachebus.redis.client import Client
from cachebus.redis.replies import named
from cachebus.templates import unmarked

LOOKUP_S = 4.0
MOST_LOOKED_AT = 5_000
"""Stored entries of which it is asked whether they were loaded since."""
FOLLOWED = 20
"""Broadcasts, and entries that were made old, of which more is asked."""


class LifeStep(msgspec.Struct, frozen=True):
    """One bar of the waterfall. Times are milliseconds of the server's clock."""

    what: str
    """`waited`, `ran`, `handled`, `told`, `read fresh`, `retry`, `delayed`, `failed`."""
    who: str
    from_ms: float
    until_ms: float | None
    """None: not over, or it is not known when it was."""
    says: str
    names: list[str] = []
    """Scopes, topics or keys, each with its kind before it."""


class EventLife(msgspec.Struct, frozen=True):
    """An event and its steps."""

    event: FoundEvent
    steps: list[LifeStep]
    fresh_ms: float | None
    """From its publication until no process read older values; None where that is not known."""
    answered: int
    """Processes that said which runs of handlers they remember: they do within ten seconds."""


async def lives_of(cache: Cache, asked: str, shards: int) -> list[EventLife]:
    """Return the lives of the events with this id or position. Raises: ConfigurationError, ServerError."""
    if not asked:
        return []
    try:
        async with asyncio.timeout(LOOKUP_S):
            found = await find_events(cache.client, asked, shards)
            return [await _life(cache, event) for event in found[:FOLLOWED]]
    except TimeoutError:
        raise ConfigurationError(
            f"too many events are kept to find an id among them within {LOOKUP_S:.0f} s; give its position"
        ) from None


async def _life(cache: Cache, event: FoundEvent) -> EventLife:
    began = float(event.published_ms or event.due_ms)
    clocks = sorted({effect.clock for effect in event.invalidated})
    handled_ms = clocks[0] / 1000 if clocks else None
    told = await ask(cache.client, f"event {event.position}", RememberedRun) if event.position else []
    steps = [_ran(run, each.process) for each in told for run in each.told]
    began_ms = min((step.from_ms for step in steps), default=handled_ms)
    if event.state == "delayed":
        steps.append(LifeStep("delayed", "", began, None, "is published when its time comes"))
    elif event.state != "trimmed":
        says = "in its shard" if event.state == "handled" else "for a worker"
        steps.append(LifeStep("waited", f"shard {event.shard}", began, began_ms, says))
    for effect in event.invalidated:
        at_ms = effect.clock / 1000
        steps.append(LifeStep("handled", effect.handler, at_ms, at_ms, "committed; made old", effect.scopes))
    if event.state == "handled" and not clocks:
        text = "handled; made nothing old, or so long ago that the journal no longer says it"
        steps.append(LifeStep("handled", "", began, None, text))
    steps += await _told(cache.client, clocks)
    steps += await _read_again(cache, event, clocks)
    for retry in event.retries:
        now_ms = cache.client.now_us() / 1000
        steps.append(LifeStep("retry", retry.handler, now_ms, now_ms + retry.due_in_ms, "waits for its next attempt"))
    for letter in event.letters:
        at_ms = float(letter.partition("-")[0])
        steps.append(LifeStep("failed", "", at_ms, at_ms, "became a dead letter", [f"letter:{letter}"]))
    fresh = max(0.0, clocks[-1] / 1000 - began) if clocks and began else None
    order = ("delayed", "waited", "ran", "handled", "told", "read fresh", "retry", "failed")
    return EventLife(
        event, sorted(steps, key=lambda step: (int(step.from_ms), order.index(step.what))), fresh, len(told)
    )


def _ran(run: RememberedRun, process: str) -> LifeStep:
    """Return a run of a handler as a step. Pure."""
    together = f", for {run.events:,} events together" if run.events > 1 else ""
    says = f"attempt {run.attempt} in {process}{together}; {run.error and 'raised '}{run.error or 'ended well'}"
    return LifeStep("ran", run.handler, run.from_ms, run.until_ms, says)


async def _told(client: Client, clocks: Sequence[int]) -> list[LifeStep]:
    """Return the broadcasts of some steps of the ledger, and who follows their topics now."""
    if not clocks:
        return []
    told: list[tuple[float, str, str]] = []
    lines = await client.store.call("XREVRANGE", client.names.feed, "+", "-", "COUNT", RECORDS_A_READ, timeout_s=2.0)
    for _, flat in reversed(lines):
        fields = named(flat)
        said = msgspec.json.decode(fields["record"])
        clock = parse_clock(str(said.get("fresh_after")))
        if clock is not None and clock.number in clocks:
            told.append((float(said["ts"]), fields["topic"].decode(errors="replace"), str(said.get("type", ""))))
    gateways = await open_sockets(client) if told else []
    steps = []
    for at_ms, topic, kind in told[:FOLLOWED]:
        followers = {each.process: sum(topic in one.topics for one in each.open) for each in gateways}
        of = ", ".join(f"{process} {number}" for process, number in followers.items() if number)
        says = f"{kind}, by its commit; " + (f"sockets that follow it now: {of}" if of else "no socket follows it now")
        steps.append(LifeStep("told", topic, at_ms, at_ms, says, [f"topic:{topic}"]))
    return steps


async def _read_again(cache: Cache, event: FoundEvent, clocks: Sequence[int]) -> list[LifeStep]:
    """Return which of the values that it made old were loaded again, among the first of a walk.

    When exactly, no entry says: it knows the newest clock from before its load.
    """
    made_old = {scope for effect in event.invalidated for scope in effect.scopes}
    server, begin = cache.client.entries, len(cache.names.entries) + 1
    steps: list[LifeStep] = []
    looked_at = 0
    if not made_old:
        return steps
    async for page in stored(cache):
        heads = await asyncio.gather(*[server.call("GETRANGE", each, 0, FIRST_BYTES - 1, key=each) for each in page])
        for name, head in zip(page, heads, strict=True):
            entry = stub(head) if head else None
            if entry is None or entry.born.number < clocks[0]:
                continue
            key = unmarked(name[begin : name.rindex("}")])
            if made_old.intersection(scopes_of(key, entry.header.tags)):
                says = f"loaded since then, in {entry.header.load_ms:.0f} ms"
                steps.append(LifeStep("read fresh", key, entry.born.number / 1000, None, says, [f"k:{key}"]))
        looked_at += len(page)
        if len(steps) >= FOLLOWED or looked_at >= MOST_LOOKED_AT:
            break
    return steps[:FOLLOWED]
