"""Dead letters: look at them, try them again, throw them away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from cachebus.events import shard_of
from cachebus.link import Link
from cachebus.plan import RetryItem

AT_ONCE = 100
TIMEOUT_S = 2.0


class Letter(NamedTuple):
    """An event that nobody tries again until it is replayed."""

    letter_id: str
    kind: str
    """`invalid`, `failed`, `unfit`, `poison`, `lost handler`, `refresh` or `gap`."""
    channel: str
    payload: bytes
    handler: str
    attempts: int
    reason: str
    detail: str
    """The end of the traceback, if there was one."""
    id: str
    """The publisher's id of the event."""
    key: str
    position: str

    @property
    def replayable(self) -> bool:
        """Whether there is a handler (or view) to give it to; a gap is only a message."""
        return bool(self.handler) and self.kind != "gap"


class DeadLetters:
    """The dead letters of a deployment, newest last. They hold payloads, so keep who may read them few."""

    def __init__(self, link: Link, *, shards: int = 1) -> None:
        self._link = link
        self._shards = shards
        self._name = link.names.bus("deadletters")

    async def count(self) -> int:
        """Return how many there are. One round trip."""
        number: int = await self._link.store.call("XLEN", self._name)
        return number

    async def list(self, count: int = 50, after: str | None = None) -> Sequence[Letter]:
        """Return up to *count* letters, oldest first, after the one with id *after*. One round trip."""
        start = "-" if after is None else f"({after}"
        lines = await self._link.store.call("XRANGE", self._name, start, "+", "COUNT", count, timeout_s=TIMEOUT_S)
        return [_letter(line) for line in lines]

    async def newest(self, count: int = 50) -> Sequence[Letter]:
        """Return the last *count* letters, newest first. One round trip."""
        lines = await self._link.store.call("XREVRANGE", self._name, "+", "-", "COUNT", count, timeout_s=TIMEOUT_S)
        return [_letter(line) for line in lines]

    async def show(self, letter_id: str) -> Letter | None:
        """Return one letter, None if there is none of that id. One round trip."""
        lines = await self._link.store.call("XRANGE", self._name, letter_id, letter_id, timeout_s=TIMEOUT_S)
        return _letter(lines[0]) if lines else None

    async def replay(self, letter_ids: Iterable[str]) -> int:
        """Have the handler of each letter run on its event once more, with all its attempts; returns how many.

        Other handlers of the event are not run again. What fails again becomes a dead letter again. Letters that are
        gone, gaps, and events no handler was found for are left alone.
        """
        moves: dict[tuple[str, str], list[str | bytes]] = {}
        for letter_id in letter_ids:
            letter = await self.show(letter_id)
            if letter is None or not letter.replayable:
                continue
            place, name, item = self._destination(letter)
            moves.setdefault(place, []).extend((letter_id, name, item))
        moved = 0
        for place, triples in moves.items():
            for first in range(0, len(triples), 3 * AT_ONCE):
                part = triples[first : first + 3 * AT_ONCE]
                keys = (self._name, *place)
                moved += await self._link.store.run("replay_deadletters", keys, part, timeout_s=TIMEOUT_S)
        return moved

    async def purge(self, letter_ids: Iterable[str] | None = None) -> int:
        """Throw letters away, all of them without *letter_ids*; returns how many."""
        number = 0
        if letter_ids is None:
            number = await self._link.store.call("XTRIM", self._name, "MAXLEN", 0, timeout_s=TIMEOUT_S)
        elif ids := tuple(letter_ids):
            number = await self._link.store.call("XDEL", self._name, *ids, timeout_s=TIMEOUT_S)
        return number

    def _destination(self, letter: Letter) -> tuple[tuple[str, str], str, bytes]:
        """Return the two keys that take the work, its name there, and the item."""
        names = self._link.names
        if letter.kind == "refresh":
            item = b"0\n0\n0\n%b\n%b" % (letter.handler.encode(), letter.payload)
            return (names.bus("refreshes"), names.bus("refresh-items")), letter.key, item
        shard = str(shard_of(letter.key or letter.channel, self._shards))
        retry = RetryItem(letter.handler, letter.position, letter.channel, letter.payload, letter.id, letter.key)
        place = (names.bus("retries", shard), names.bus("retry-items", shard))
        return place, retry.name, b"0\n" + msgspec.msgpack.encode(retry)


def _letter(line: Sequence[Any]) -> Letter:
    identity, flat = line
    fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
    text = {name: value.decode(errors="replace") for name, value in fields.items()}
    return Letter(
        identity.decode(),
        text["kind"],
        text["channel"],
        fields["payload"],
        text["handler"],
        int(text["attempts"]),
        *(text[name] for name in ("reason", "detail", "id", "key", "position")),
    )
