"""Forgets one user: finds what is kept of them, deletes it, and says what was deleted and what is left until when.

What belongs to a user is told by names. Cached values: the views that say whose their values are, and the tag
`user:<id>`. Events and dead letters: the ordering key, or a field of the payload that is called as a view calls the
user (`user_id`), however nested. Rate limits: a word of the counter's key.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus.bus.dead_letters import DeadLetters, every_letter
from cachebus.bus.letters import DelayedItem, RetryItem
from cachebus.bus.retained import forget_handled, newest_first
from cachebus.cache.cache import Cache
from cachebus.cache.tiers.entry import FIRST_BYTES, stub
from cachebus.cache.upkeep.popularity import forget_calls, noted_calls
from cachebus.limits.server_backend import ServerLimits
from cachebus.monitoring.people import Owned, UserNames, names_of_user, owned_views
from cachebus.redis.walk import literal, names_like, stream_pages
from cachebus.sessions.store import SessionStore
from cachebus.templates import escape

FIELDS = frozenset({"user_id", "user"})
"""What a field that holds a user's id is called, beside the names that the views use."""
TIMEOUT_S = 2.0

Step = Callable[[int], None]
"""Called with how many names, letters or events were looked at."""


class Receipt(msgspec.Struct):
    """What was found of a user, and what of it was deleted."""

    user: str
    at_ms: int
    """By the server's clock."""
    done: bool = False
    """False: this was only a look, and nothing was deleted."""
    clock: str = ""
    """Of the invalidation: no process reads older values from then on."""
    entries: int = 0
    sessions: int = 0
    letters: int = 0
    limits: int = 0
    reads: int = 0
    """Calls that were noted as read: what `top` and warming know."""
    events: int = 0
    """Handled events that were kept."""
    left: dict[str, int] = msgspec.field(default_factory=dict)
    """What ends by itself: what it is and when it ends -> how many."""


class Forgetting:
    """Looks for what is kept of one user, and deletes it. Each walk is as long as the keyspace."""

    def __init__(self, cache: Cache, user: str, *, shards: int, step: Step) -> None:
        self._cache = cache
        self._client = cache.client
        self._user = user
        self._shards = shards
        self._step = step
        self._views: list[Owned] = []
        self._names = names_of_user((), user)
        self._fields = FIELDS
        self._keys = {user, f"user:{user}"}

    async def run(self, *, delete: bool) -> Receipt:
        """Look, and with *delete* delete what is found. Safe to repeat. Raises: ServerError, SessionsUnavailable.

        Sessions go first: who is still signed in has things cached anew.
        """
        self._views = await owned_views(self._cache)
        self._names = names_of_user(self._views, self._user)
        self._fields = FIELDS | {view.identity for view in self._views}
        receipt = Receipt(self._user, self._client.now_us() // 1000, done=delete)
        receipt.sessions = await self._sessions(delete=delete)
        if delete:
            receipt.clock = await self._invalidate(self._names)
        receipt.entries = await self._entries(delete=delete)
        receipt.letters = await self._letters(delete=delete)
        receipt.limits = await self._limits(delete=delete)
        receipt.reads = await self._reads(delete=delete)
        receipt.events = await self._events(receipt, delete=delete)
        await self._waiting(receipt)
        await self._broadcasts(receipt)
        return receipt

    async def _sessions(self, *, delete: bool) -> int:
        store = SessionStore(self._client)
        return await store.invalidate_user(self._user) if delete else len(await store.list_user(self._user))

    async def _invalidate(self, names: UserNames) -> str:
        clock = await self._cache.invalidate(keys=names.keys, tags=names.tags)
        for prefix in names.prefixes:
            clock = await self._cache.invalidate(prefix=prefix)
        return clock

    async def _entries(self, *, delete: bool) -> int:
        """Delete the bytes, too: an invalidated value lies where it is until its TTL ends."""
        server, begin = self._client.entries, self._client.names.entries
        found: set[str] = set()
        async for page in names_like(server, f"{literal(begin)}*"):
            heads = await asyncio.gather(
                *[server.call("GETRANGE", name, 0, FIRST_BYTES - 1, key=name) for name in page]
            )
            for name, head in zip(page, heads, strict=True):
                read = stub(head) if head else None
                key = name[len(begin) + 1 : name.rindex("}")]
                if self._is_theirs(key, read.header.tags if read is not None else ()):
                    found.add(name)
            self._step(len(page))
        if delete:
            beside = [self._client.names.ahead(name) for name in found]  # why they were loaded ahead
            await asyncio.gather(*[server.call("UNLINK", name, key=name) for name in (*found, *beside)])
        return len(found)

    def _is_theirs(self, key: str, tags: tuple[str, ...]) -> bool:
        names = self._names
        return key in names.keys or key.startswith(tuple(names.prefixes)) or not set(names.tags).isdisjoint(tags)

    async def _letters(self, *, delete: bool) -> int:
        letters = DeadLetters(self._client, shards=self._shards)
        found = []
        async for letter in every_letter(letters):
            if self._concerns(letter.key, letter.payload):
                found.append(letter.letter_id)
            self._step(1)
        if delete and found:
            await letters.purge(found)
        return len(found)

    async def _limits(self, *, delete: bool) -> int:
        names, word = self._client.names, escape(self._user)
        begin = names.spread("limit", "")[:-1]
        found: set[str] = set()
        async for page in names_like(self._client.store, f"{literal(begin)}*"):
            found.update(name for name in page if word in name[len(begin) :].partition("}")[0].split(":"))
            self._step(len(page))
        if delete:
            counters = ServerLimits(self._client, instances=1, patience_s=TIMEOUT_S)
            for name in found:
                await counters.reset([name])
        return len(found)

    async def _reads(self, *, delete: bool) -> int:
        number = 0
        for owned in self._views:
            calls = [call for call in await noted_calls(self._client, owned.template) if self._made(owned, call)]
            number += len(calls)
            if delete and calls:
                await forget_calls(self._client, owned.template, calls)
        return number

    def _made(self, owned: Owned, call: bytes) -> bool:
        """Whether a call of a view was for this user; of one that others declare, whether it names the user at all."""
        try:
            arguments = msgspec.json.decode(call, type=list[Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        view = self._cache.views.get(owned.template)
        if view is None:
            return self._user in map(str, arguments)
        named = dict(zip(inspect.signature(view.function).parameters, arguments, strict=False))
        return str(named.get(owned.identity)) == self._user

    async def _events(self, receipt: Receipt, *, delete: bool) -> int:
        number = 0
        for shard in range(self._shards):
            found = []
            async for page in newest_first(self._client, shard):
                found += [each.event.position for each in page if self._concerns(each.event.key, each.event.payload)]
                self._step(len(page))
            deleted = await forget_handled(self._client, shard, found) if delete else len(found)
            number += deleted
            if len(found) > deleted:
                left = "events that wait for their handler, or are the last that was handled"
                receipt.left[left] = receipt.left.get(left, 0) + len(found) - deleted
        return number

    async def _waiting(self, receipt: Receipt) -> None:
        """Count events that are still to be handled: whoever published them was promised that they are."""
        names, call = self._client.names, self._client.store.call
        delayed = [DelayedItem.unpack(item) for item in await call("HVALS", names.bus("delayed-items"))]
        number = sum(item is not None and self._concerns(item.key, item.payload) for item in delayed)
        for shard in range(self._shards):
            for packed in await call("HVALS", names.bus("retry-items", str(shard)), timeout_s=TIMEOUT_S):
                retry = RetryItem.unpack(packed.partition(b"\n")[2])
                number += self._concerns(retry.key, retry.payload)
        if number:
            receipt.left["events that are published or tried again later"] = number

    async def _broadcasts(self, receipt: Receipt) -> None:
        """Count what stays: each names the one before it, so that none can be taken out without a gap for everybody."""
        number = 0
        async for page in stream_pages(self._client.store, self._client.names.feed):
            topics = [fields.get("topic", b"").decode(errors="replace") for _, fields in page]
            number += sum(self._user in topic.split(":") for topic in topics)
            self._step(len(page))
        if number:
            receipt.left["broadcasts, until newer ones take their place"] = number

    def _concerns(self, key: str, payload: bytes) -> bool:
        """Whether an event is about this user."""
        if key in self._keys:
            return True
        if self._user.encode() not in payload:
            return False
        try:
            look = [msgspec.json.decode(payload)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        while look:
            value = look.pop()
            if isinstance(value, dict):
                if any(name in self._fields and str(each) == self._user for name, each in value.items()):
                    return True
                look += value.values()
            elif isinstance(value, list):
                look += value
        return False
