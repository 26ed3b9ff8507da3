"""Dead letters: look at them, try them again, delete them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

import msgspec

from cachebus.bus.events import encode, shard_of
from cachebus.bus.letters import Letter, RetryItem
from cachebus.bus.local import LocalBus
from cachebus.freshness.scopes import names
from cachebus.redis.client import Client, Connector
from cachebus.redis.part import Part
from cachebus.redis.replies import named

AT_ONCE = 100
TIMEOUT_S = 2.0
WATCH_S = 7.0
"""How long a replay is watched: a worker that did not hear of it finds it within five seconds."""
LOOK_S = 0.1
NO_WORKER = "no worker runs"
_LETTER_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_COUNT = re.compile(r"[0-9]{1,9}")


class Outcome(NamedTuple):
    """What became of a dead letter that was put back."""

    state: Literal["waiting", "handled", "failed"]
    """`waiting`: for its turn, for the next attempt, or for a worker."""
    reason: str = ""
    """Why it failed again, or `no worker runs` where it waits for one."""


class DeadLetters:
    """The dead letters of a deployment, newest last. They hold payloads, so keep who may read them few.

    Without a server they are those of this process.
    """

    def __init__(self, connector: Connector, *, shards: int = 1) -> None:
        self._part: Part[ServerLetters | LocalLetters] = Part(
            connector,
            lambda client: ServerLetters(client, shards=shards),
            lambda in_process: LocalLetters(in_process.of(LocalBus)),
        )

    async def count(self) -> int:
        """Return how many there are. One round trip."""
        return await (await self._part.get()).count()

    async def list(self, count: int = 50, after: str | None = None) -> Sequence[Letter]:
        """Return up to *count* letters, oldest first, after the one whose `place` is *after*. One round trip."""
        return await (await self._part.get()).list(count, after)

    async def newest(self, count: int = 50) -> Sequence[Letter]:
        """Return the last *count* letters, newest first. One round trip."""
        return await (await self._part.get()).newest(count)

    async def show(self, letter_id: str) -> Letter | None:
        """Return one letter, None if there is none of that id, or it is no id at all. At most three round trips."""
        return await (await self._part.get()).show(letter_id)

    async def replay(self, letter_ids: str | Iterable[str]) -> int:
        """Have the handler of each letter run on its event once more, with all its attempts; returns how many.

        Other handlers of the event are not run again. What fails again is the same dead letter again, with its id and
        the attempts of both; `outcome` says what became of one. Letters that are gone, gaps, and events no handler was
        found for are left alone.
        """
        return await (await self._part.get()).replay(names(letter_ids))

    async def replay_changed(self, letter_id: str, payload: bytes) -> bool:
        """Do so with another payload, that of the letter corrected; False where it is gone or cannot be replayed.

        Only its own handler gets the new payload. Raises: PublishRefused where it is no JSON, or too long; ServerError.
        """
        return await (await self._part.get()).replay_changed(letter_id, encode(payload))

    async def outcome(self, letter: Letter) -> Outcome:
        """Return what became of a letter that was put back. At most four round trips. Raises: ServerError."""
        return await (await self._part.get()).outcome(letter)

    async def purge(self, letter_ids: str | Iterable[str] | None = None) -> int:
        """Delete letters, all of them without *letter_ids*; returns how many."""
        return await (await self._part.get()).purge(None if letter_ids is None else names(letter_ids))


async def every_letter(letters: DeadLetters) -> AsyncIterator[Letter]:
    """Yield the letters there are, oldest first. One round trip for each hundred. Raises: ServerError."""
    after: str | None = None
    while page := await letters.list(AT_ONCE, after):
        for letter in page:
            yield letter
        after = page[-1].place


async def watched(letters: DeadLetters, put_back: Sequence[Letter]) -> list[Outcome]:
    """Return what became of letters that were put back, as soon as that is known of all of them, or after WATCH_S.

    Raises: ServerError.
    """
    outcomes = [Outcome("waiting")] * len(put_back)
    ends = monotonic() + WATCH_S
    while waiting := [at for at, outcome in enumerate(outcomes) if outcome.state == "waiting"]:
        for first in range(0, len(waiting), AT_ONCE):
            part = waiting[first : first + AT_ONCE]
            found = await asyncio.gather(*[letters.outcome(put_back[at]) for at in part])
            for at, outcome in zip(part, found, strict=True):
                outcomes[at] = outcome
        if monotonic() > ends:
            break
        await asyncio.sleep(LOOK_S)
    return outcomes


def told(outcomes: Sequence[Outcome]) -> str:
    """Say what became of letters that were put back, as the end of a sentence; '' where there are none."""
    states = Counter(outcome.state for outcome in outcomes)
    parts = [f"{states['handled']:,} handled"] if states["handled"] else []
    if again := [outcome for outcome in outcomes if outcome.state == "failed"]:
        parts.append(f"{len(again):,} failed again: {again[0].reason}")
    forsaken = sum(outcome.reason == NO_WORKER for outcome in outcomes)
    if trying := states["waiting"] - forsaken:
        parts.append(f"{trying:,} still being tried")
    if forsaken:
        parts.append(f"{forsaken:,} waiting: {NO_WORKER}")
    return f": {', '.join(parts)}" if parts else ""


class ServerLetters:
    """Dead letters on the server. See `DeadLetters`."""

    def __init__(self, client: Client, *, shards: int = 1) -> None:
        self._client = client
        self._shards = shards
        self._name = client.names.bus("deadletters")
        self._ids = client.names.bus("deadletter-ids")

    async def count(self) -> int:
        """See `DeadLetters.count`."""
        number: int = await self._client.store.call("XLEN", self._name)
        return number

    async def list(self, count: int = 50, after: str | None = None) -> Sequence[Letter]:
        """See `DeadLetters.list`."""
        start = "-" if after is None else f"({after}"
        lines = await self._client.store.call("XRANGE", self._name, start, "+", "COUNT", count, timeout_s=TIMEOUT_S)
        return [_letter(line) for line in lines or ()]  # none of none is nil

    async def newest(self, count: int = 50) -> Sequence[Letter]:
        """See `DeadLetters.newest`."""
        lines = await self._client.store.call("XREVRANGE", self._name, "+", "-", "COUNT", count, timeout_s=TIMEOUT_S)
        return [_letter(line) for line in lines or ()]  # none of none is nil

    async def show(self, letter_id: str) -> Letter | None:
        """See `DeadLetters.show`."""
        if not _LETTER_ID.fullmatch(letter_id):
            return None
        call, place = self._client.store.call, letter_id
        while not (lines := await call("XRANGE", self._name, place, place, timeout_s=TIMEOUT_S)):
            if place != letter_id or not (known := await call("HGET", self._ids, letter_id, timeout_s=TIMEOUT_S)):
                return None
            place = known.decode()
        return _letter(lines[0])

    async def replay(self, letter_ids: Iterable[str]) -> int:
        """See `DeadLetters.replay`."""
        found = [await self.show(letter_id) for letter_id in letter_ids]
        return await self._put_back(letter for letter in found if letter is not None and letter.replayable)

    async def replay_changed(self, letter_id: str, payload: bytes) -> bool:
        """See `DeadLetters.replay_changed`."""
        letter = await self.show(letter_id)
        if letter is None or not letter.replayable or letter.kind == "refresh":  # whose payload is a call's arguments
            return False
        return bool(await self._put_back([letter._replace(payload=payload)]))

    async def _put_back(self, letters: Iterable[Letter]) -> int:
        moves: dict[tuple[str, str, str], list[tuple[str | bytes | int, ...]]] = {}
        for letter in letters:
            destination, name, item = self._destination(letter)
            attempts = letter.attempts if letter.kind == "refresh" else ""
            moves.setdefault(destination, []).append((letter.letter_id, letter.place, attempts, name, item))
        moved = 0
        for (due, items, wakes), work in moves.items():
            for first in range(0, len(work), AT_ONCE):
                keys = (self._name, self._ids, due, items)
                args = (wakes, *(part for each in work[first : first + AT_ONCE] for part in each))
                moved += await self._client.store.run("bus/replay_deadletters", keys, args, timeout_s=TIMEOUT_S)
        return moved

    async def outcome(self, letter: Letter) -> Outcome:
        """See `DeadLetters.outcome`."""
        call, (_, items, _), name, _ = self._client.store.call, *self._destination(letter)
        if await call("HEXISTS", items, name):
            # Each shard has an owner while any worker runs; a refresh item is taken by all of them.
            shard = 0 if letter.kind == "refresh" else self._shard(letter)
            owned = await call("EXISTS", self._client.names.bus("lease", str(shard)))
            return Outcome("waiting", "" if owned else NO_WORKER)
        return _outcome(await self.show(letter.letter_id))

    async def purge(self, letter_ids: Iterable[str] | None = None) -> int:
        """See `DeadLetters.purge`."""
        number = 0
        call = self._client.store.call
        if letter_ids is None:
            number = await call("XTRIM", self._name, "MAXLEN", 0, timeout_s=TIMEOUT_S)
            await call("DEL", self._ids, timeout_s=TIMEOUT_S)
        elif ids := tuple(letter_ids):
            known = await call("HMGET", self._ids, *ids, timeout_s=TIMEOUT_S)
            places = (place or each for place, each in zip(known, ids, strict=True))
            number = await call("XDEL", self._name, *places, timeout_s=TIMEOUT_S)
            await call("HDEL", self._ids, *ids, timeout_s=TIMEOUT_S)
        return number

    def _destination(self, letter: Letter) -> tuple[tuple[str, str, str], str, bytes]:
        """Return where the work goes (two keys, the channel that wakes who does it), its name there, and the item."""
        names = self._client.names
        if letter.kind == "refresh":
            item = b"0\n0\n0\n%b\n%b" % (letter.handler.encode(), letter.payload)
            return (names.bus("refreshes"), names.bus("refresh-items"), names.bus("refresh")), letter.key, item
        shard, retry = str(self._shard(letter)), _retry_of(letter)
        destination = (names.bus("retries", shard), names.bus("retry-items", shard), names.bus("retry", shard))
        return destination, retry.name, b"0\n" + msgspec.msgpack.encode(retry)

    def _shard(self, letter: Letter) -> int:
        return shard_of(letter.key or letter.channel, self._shards)


class LocalLetters:
    """Dead letters of this process. See `DeadLetters`."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus

    async def count(self) -> int:
        """See `DeadLetters.count`."""
        return len(self._bus.letters)

    async def list(self, count: int = 50, after: str | None = None) -> Sequence[Letter]:
        """See `DeadLetters.list`."""
        letters = [*self._bus.letters.values()]
        first = next((at + 1 for at, letter in enumerate(letters) if letter.place == after), 0)
        return letters[first : first + count]

    async def newest(self, count: int = 50) -> Sequence[Letter]:
        """See `DeadLetters.newest`."""
        return [*reversed(self._bus.letters.values())][:count]

    async def show(self, letter_id: str) -> Letter | None:
        """See `DeadLetters.show`."""
        return self._bus.letters.get(letter_id)

    async def replay(self, letter_ids: Iterable[str]) -> int:
        """See `DeadLetters.replay`."""
        wanted = [self._bus.letters[each] for each in letter_ids if each in self._bus.letters]
        replayed = [letter for letter in wanted if letter.replayable]
        for letter in replayed:
            del self._bus.letters[letter.letter_id]
            self._bus.retry(_retry_of(letter), 0, 0)
        return len(replayed)

    async def replay_changed(self, letter_id: str, payload: bytes) -> bool:
        """See `DeadLetters.replay_changed`."""
        letter = self._bus.letters.get(letter_id)
        if letter is None or not letter.replayable:
            return False
        self._bus.letters[letter_id] = letter._replace(payload=payload)
        return bool(await self.replay([letter_id]))

    async def outcome(self, letter: Letter) -> Outcome:
        """See `DeadLetters.outcome`."""
        if _retry_of(letter).name in self._bus.retries:
            return Outcome("waiting")
        return _outcome(self._bus.letters.get(letter.letter_id))

    async def purge(self, letter_ids: Iterable[str] | None = None) -> int:
        """See `DeadLetters.purge`."""
        wanted = [*self._bus.letters] if letter_ids is None else [*letter_ids]
        return sum(self._bus.letters.pop(each, None) is not None for each in wanted)


def _outcome(again: Letter | None) -> Outcome:
    """Return what became of a letter whose work is done, given the one that stands under its id."""
    return Outcome("handled") if again is None else Outcome("failed", again.reason)


def _retry_of(letter: Letter) -> RetryItem:
    return RetryItem(
        letter.handler,
        letter.position,
        letter.channel,
        letter.payload,
        letter.id,
        letter.key,
        before=letter.attempts,
        letter=letter.letter_id,
    )


def _letter(line: Sequence[Any]) -> Letter:
    identity, flat = line
    fields = named(flat)
    text = {name: value.decode(errors="replace") for name, value in fields.items()}
    attempts = text.get("attempts", "")
    place = identity.decode()
    return Letter(
        text["letter"] if _LETTER_ID.fullmatch(text.get("letter", "")) else place,
        text.get("kind", "foreign"),
        text.get("channel", ""),
        fields.get("payload", b""),
        text.get("handler", ""),
        int(attempts) if _COUNT.fullmatch(attempts) else 0,
        reason=text.get("reason", ""),
        detail=text.get("detail", ""),
        id=text.get("id", ""),
        key=text.get("key", ""),
        position=text.get("position", ""),
        place=place,
    )
