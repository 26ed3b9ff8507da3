"""*Failures*: dead letters by what went wrong, those that match together, and retries that wait for their time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping
from typing import Self

import msgspec

from cachebus.bus.dead_letters import DeadLetters, every_letter
from cachebus.bus.letters import Letter, LetterGroup, RetryItem, grouped, same_reason
from cachebus.monitoring.history import Release
from cachebus.redis.client import Client

SHOWN = 50
GROUPS = 100
RETRIES = 100
LONGEST_PAYLOAD = 64_000


class LetterFilter(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which letters are meant: what is '' matches all."""

    kind: str = ""
    channel: str = ""
    handler: str = ""
    reason: str = ""
    """Numbers in it stand as N."""
    text: str = ""
    """Stands somewhere in channel, handler, reason, id or key."""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Read it from a query."""
        return cls(**{name: query[name] for name in cls.__struct_fields__ if name in query})

    def __bool__(self) -> bool:
        return any(msgspec.structs.astuple(self))

    def meets(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        if self.reason and self.reason != same_reason(letter.reason):
            return False
        for name in ("kind", "channel", "handler"):
            if (wanted := getattr(self, name)) and wanted != getattr(letter, name):
                return False
        words = (letter.channel, letter.handler, letter.reason, letter.id, letter.key, letter.letter_id)
        return not self.text or any(self.text.lower() in word.lower() for word in words)


class LetterShown(msgspec.Struct, frozen=True):
    """One letter."""

    letter_id: str
    kind: str
    channel: str
    handler: str
    attempts: int
    reason: str
    detail: str
    id: str
    key: str
    position: str
    at_ms: int
    payload: str
    payload_bytes: int
    text: bool
    """Whether the payload is all here, as text that may be edited."""
    replayable: bool


class GroupShown(msgspec.Struct, frozen=True):
    """Letters that ended for one reason."""

    group: LetterGroup
    release: str
    """The one that was deployed when the first of them came; '' where none is known."""


class WaitingRetry(msgspec.Struct, frozen=True):
    """A handler that failed and is run again later."""

    handler: str
    channel: str
    id: str
    key: str
    position: str
    shard: int
    due_in_ms: int


class FailuresShown(msgspec.Struct, frozen=True):
    """The answer of `api/failures`."""

    total: int
    matching: int
    groups: list[GroupShown]
    more_groups: int
    letters: list[LetterShown]
    """The newest that match."""
    retries: list[WaitingRetry]
    """Those that are due first."""
    more_retries: int


class Failures:
    """Reads the dead letters of a deployment; what it read is kept until there are others."""

    def __init__(self, client: Client, shards: int) -> None:
        self._client = client
        self._shards = shards
        self.letters = DeadLetters(client, shards=shards)
        self._read: tuple[tuple[int, str], list[Letter]] = ((-1, ""), [])
        self._reading = asyncio.Lock()

    async def show(self, wanted: LetterFilter, releases: list[Release]) -> FailuresShown:
        """Return groups, letters and retries. Raises: ServerError."""
        light, (retries, more) = await asyncio.gather(self._light(), self._retries())
        matching = [letter for letter in light if wanted.meets(letter)]
        groups = grouped(light)
        newest = heapq.nlargest(SHOWN, matching, key=lambda letter: _order(letter.place))
        whole = await asyncio.gather(*[self.letters.show(letter.letter_id) for letter in newest])
        return FailuresShown(
            len(light),
            len(matching),
            [GroupShown(group, _release(releases, group.first_ms)) for group in groups[:GROUPS]],
            len(groups[GROUPS:]),
            [letter_shown(letter) for letter in whole if letter is not None],
            retries,
            more,
        )

    async def matching(self, wanted: LetterFilter) -> list[str]:
        """Return the ids of all letters that are meant. Raises: ServerError."""
        return [letter.letter_id async for letter in every_letter(self.letters) if wanted.meets(letter)]

    async def _light(self) -> list[Letter]:
        """Return all letters, oldest first, without their payloads and tracebacks."""
        async with self._reading:
            count, newest = await asyncio.gather(self.letters.count(), self.letters.newest(1))
            mark = (count, newest[0].place if newest else "")
            if mark != self._read[0]:
                read = [letter._replace(payload=b"", detail="") async for letter in every_letter(self.letters)]
                self._read = mark, read
            return self._read[1]

    async def _retries(self) -> tuple[list[WaitingRetry], int]:
        waiting = [each async for each in retries_of(self._client, self._shards)]
        return waiting[:RETRIES], len(waiting[RETRIES:])


async def retries_of(client: Client, shards: int) -> AsyncIterator[WaitingRetry]:
    """Yield the retries that wait in each shard, those due first, at most a hundred of each. Raises: ServerError."""
    now_us, found = client.now_us(), []
    for shard in range(shards):
        due = await client.store.call(
            "ZRANGE", client.names.bus("retries", str(shard)), 0, RETRIES - 1, "WITHSCORES", timeout_s=2.0
        )
        names, scores = due[::2], [float(each) for each in due[1::2]]
        if not names:
            continue
        items = await client.store.call("HMGET", client.names.bus("retry-items", str(shard)), *names, timeout_s=2.0)
        for packed, due_us in zip(items, scores, strict=True):
            item = RetryItem.unpack(packed.partition(b"\n")[2]) if packed else None
            if item is not None:
                left_ms = max(0, round((due_us - now_us) / 1000))
                found.append(WaitingRetry(item.handler, item.channel, item.id, item.key, item.position, shard, left_ms))
    for each in sorted(found, key=lambda retry: retry.due_in_ms):
        yield each


def letter_shown(letter: Letter) -> LetterShown:
    """Return a letter as the page shows it. Pure."""
    whole = len(letter.payload) <= LONGEST_PAYLOAD
    try:
        payload, text = letter.payload[:LONGEST_PAYLOAD].decode(), whole
    except UnicodeDecodeError:
        payload, text = letter.payload[:LONGEST_PAYLOAD].decode(errors="backslashreplace"), False
    return LetterShown(
        letter.letter_id,
        letter.kind,
        letter.channel,
        letter.handler,
        letter.attempts,
        letter.reason,
        letter.detail,
        letter.id,
        letter.key,
        letter.position,
        int(letter.place.partition("-")[0]),
        payload,
        len(letter.payload),
        text,
        letter.replayable,
    )


def _release(releases: list[Release], at_ms: float) -> str:
    return next((release.name for release in releases if release.at_ms <= at_ms), "")


def _order(place: str) -> tuple[int, int]:
    milliseconds, _, number = place.partition("-")
    return int(milliseconds), int(number or 0)
