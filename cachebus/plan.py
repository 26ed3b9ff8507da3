"""What one commit writes, gathered event by event: effects as bytes, ready to be sent. Pure."""

from __future__ import annotations

import inspect
import secrets
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cachebus.effects import Answer, Broadcast, Effect, Invalidate, Publish, Refresh
from cachebus.errors import CacheBusError
from cachebus.events import PAYLOAD_BYTES, Event, channel_fault, encode, shard_of
from cachebus.keys import checked_key_scope, scopes_to_invalidate, tag_scope

if TYPE_CHECKING:
    from cachebus.wire import Argument

MOST_ARGUMENTS = 900
"""A script takes at most 1,000 arguments; the rest are the commit's own. Above that Redis is held too long."""
ENOUGH_ARGUMENTS = 500
"""A plan that has grown this far is committed; whatever the next event adds still fits, up to MOST_ARGUMENTS."""
ENOUGH_EVENTS = 1000
ENOUGH_BYTES = 1_000_000
REASON_CHARACTERS = 500
DETAIL_CHARACTERS = 4000
KEPT_PAYLOAD_BYTES = 4 * PAYLOAD_BYTES
"""A dead letter holds the whole payload, unless somebody put a monster into the stream."""

Sign = Callable[[str, str, bytes], Sequence[str | int]]
"""From channel, id and payload to the fields of a signature, or none."""

_PLAIN = frozenset({GeneratorType, list, tuple})
"""What handlers usually answer with; anything else is looked at twice."""
_NONE: tuple[dict[str, bytes], list[Publication]] = ({}, [])
_encode = msgspec.json.Encoder().encode


class Unfit(Exception):
    """A handler answered with something that cannot be written. Running it again would not change that."""


class RetryItem(msgspec.Struct, frozen=True, array_like=True):
    """One handler's run on one event that is to be repeated. Holds the payload, never a reference to the stream."""

    handler: str
    position: str
    channel: str
    payload: bytes
    id: str
    key: str

    @property
    def name(self) -> str:
        """Its name in the retries: one for each event and handler."""
        return f"{self.position}/{self.handler}"

    def event(self, attempt: int) -> Event:
        """Return the envelope for attempt number *attempt*."""
        return Event(self.position, self.channel, self.payload, self.id, self.key, attempt)


class Publication(NamedTuple):
    """A further event, as the commit takes it; what is '' is left out."""

    shard: int
    channel: str
    payload: bytes
    id: str
    key: str
    timestamp: str
    signature: str


class DeadLetter(NamedTuple):
    """An event nobody will try again until somebody asks for it: what it was and why it ended here."""

    kind: str
    """`invalid`, `failed`, `unfit`, `poison`, `lost handler`, `refresh`, or `gap`."""
    channel: str
    payload: bytes
    handler: str
    attempts: int
    reason: str
    detail: str
    """The traceback, if there is one; at most 4,000 characters of it, the end."""
    id: str
    key: str
    position: str


def dead_letter(
    kind: str, event: Event, handler: str, reason: str, error: BaseException | None = None, *, attempts: int = 0
) -> DeadLetter:
    """Return the dead letter of *event*."""
    detail = "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS:] if error is not None else ""
    return DeadLetter(
        kind,
        event.channel,
        event.payload[:KEPT_PAYLOAD_BYTES],
        handler,
        attempts or event.attempt,
        reason[:REASON_CHARACTERS],
        detail,
        event.id,
        event.key,
        event.position,
    )


class Plan:
    """Everything a batch leads to, and the position it moves the shard to."""

    __slots__ = (
        "again",
        "arguments",
        "broadcasts",
        "bytes",
        "dead",
        "done",
        "events",
        "first",
        "marks",
        "opened",
        "position",
        "publishes",
        "refreshes",
        "retries",
        "scopes",
        "shards",
        "sign",
    )

    def __init__(self, shards: int = 1, sign: Sign | None = None) -> None:
        self.shards = shards
        self.sign = sign
        self.position = b""
        """The last event in it; empty where it moves no position."""
        self.first = b""
        self.opened = 0.0
        self.events = 0
        self.scopes: dict[str, None] = {}
        self.broadcasts: list[bytes] = []
        self.refreshes: dict[str, bytes] = {}
        self.publishes: list[Publication] = []
        self.retries: list[tuple[Argument, ...]] = []
        self.again: list[tuple[Argument, ...]] = []
        self.done: list[str] = []
        self.dead: list[DeadLetter] = []
        self.marks: list[str] = []
        self.arguments = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time to commit."""
        return self.arguments >= ENOUGH_ARGUMENTS or self.events >= ENOUGH_EVENTS or self.bytes >= ENOUGH_BYTES

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.events or self.done or self.again or self.dead or self.marks)

    def begin(self, position: bytes, now: float) -> None:
        """Move on to the next event, at *position*; *now* in seconds of any steady clock."""
        if not self.events:
            self.first, self.opened = position, now
        self.events += 1
        self.position = position

    def add(self, answer: Answer) -> None:
        """Take in what a handler answered, all of it or (raising) nothing.

        Runs the handler's generator. Raises: Unfit, or whatever the generator raises.
        """
        if answer is None:
            return
        scopes, broadcasts, others = _sorted_out(answer)
        refreshes, publishes = self._others(others, scopes) if others else _NONE
        arguments = len(scopes) + len(broadcasts) + 2 * len(refreshes) + len(Publication._fields) * len(publishes)
        if self.arguments + arguments > MOST_ARGUMENTS:
            raise Unfit(f"too many effects: {arguments} arguments, {MOST_ARGUMENTS - ENOUGH_ARGUMENTS} are sure to fit")
        known = self.scopes
        for scope in scopes:
            if scope in known:
                arguments -= 1
            known[scope] = None
        self.arguments += arguments
        for broadcast in broadcasts:
            self.bytes += len(broadcast)
        self.broadcasts += broadcasts
        if others:
            self.refreshes.update(refreshes)
            self.publishes += publishes
            self.bytes += sum(len(publish.payload) for publish in publishes)

    def retry(self, item: RetryItem, delay_ms: int, *, attempts: int = 1) -> None:
        """Have a handler run on an event again; *attempts* were made."""
        blob = b"%d\n" % attempts + msgspec.msgpack.encode(item)
        self.retries.append((item.name, delay_ms, blob))
        self.arguments += 3
        self.bytes += len(blob)

    def retry_again(self, name: str, delay_ms: int) -> None:
        """Keep an item in the retries, to be taken again in *delay_ms*."""
        self.again.append((name, delay_ms))
        self.arguments += 2

    def finish(self, name: str) -> None:
        """Take an item out of the retries."""
        self.done.append(name)
        self.arguments += 1

    def bury(self, letter: DeadLetter) -> None:
        """Add a dead letter."""
        self.dead.append(letter)
        self.arguments += len(letter)
        self.bytes += len(letter.payload) + len(letter.detail)

    def unmark(self, name: str) -> None:
        """Take back the mark of an event or item that was run without ending the process."""
        self.marks.append(name)
        self.arguments += 1

    def body(self) -> list[Argument]:
        """Return the arguments of `commit.lua` after its own: nine counts, then that many of each."""
        sections: list[list[Argument]] = [
            list(self.scopes),
            list(self.broadcasts),
            [part for refresh in self.refreshes.items() for part in refresh],
            [part for retry in self.retries for part in retry],
            [part for again in self.again for part in again],
            list(self.done),
            [part for letter in self.dead for part in letter],
            [part for publish in self.publishes for part in publish],
            list(self.marks),
        ]
        counts = [
            *(len(self.scopes), len(self.broadcasts), len(self.refreshes), len(self.retries), len(self.again)),
            *(len(self.done), len(self.dead), len(self.publishes), len(self.marks)),
        ]
        return [*counts, *(argument for section in sections for argument in section)]

    def _others(
        self, others: Iterable[Refresh | Publish], scopes: list[str]
    ) -> tuple[dict[str, bytes], list[Publication]]:
        refreshes: dict[str, bytes] = {}
        publishes: list[Publication] = []
        for effect in others:
            try:
                if isinstance(effect, Refresh):
                    key = effect.view.key(*effect.args, **effect.kwargs)
                    scopes.append(checked_key_scope(key))
                    arguments = effect.view.encode_arguments(*effect.args, **effect.kwargs)
                    refreshes[key] = effect.view.name.encode() + b"\n" + arguments
                else:
                    publishes.append(self._publish(effect))
            except (TypeError, ValueError, AttributeError, CacheBusError) as bad:
                raise Unfit(f"{effect!r}: {bad}") from bad
        return refreshes, publishes

    def _publish(self, effect: Publish) -> Publication:
        if fault := channel_fault(effect.channel):
            raise Unfit(fault)
        payload, name = encode(effect.event), secrets.token_hex(12)
        signed = self.sign(effect.channel, name, payload) if self.sign is not None else ()
        _, stamp, _, signature = signed or ("", "", "", "")
        shard = shard_of(effect.key or effect.channel, self.shards)
        return Publication(shard, effect.channel, payload, name, effect.key or "", str(stamp), str(signature))


def _sorted_out(answer: Any) -> tuple[list[str], list[bytes], list[Refresh | Publish]]:
    """Return an answer's scopes, its broadcasts, and what is rarer. Runs the handler's generator."""
    scopes: list[str] = []
    broadcasts: list[bytes] = []
    others: list[Refresh | Publish] = []
    for effect in answer if type(answer) in _PLAIN else _effects(answer):
        if type(effect) is Broadcast:
            broadcasts.append(_broadcast(effect))
        elif type(effect) is Invalidate:
            _add_scopes(effect, scopes)
        elif isinstance(effect, Refresh | Publish):
            others.append(effect)
        else:
            raise Unfit(f"{effect!r} is not an effect; yield Invalidate, Broadcast, Refresh or Publish")
    return scopes, broadcasts, others


def _effects(answer: Any) -> Iterable[Effect]:
    if inspect.iscoroutine(answer):
        answer.close()
        raise Unfit("the handler returned a coroutine; write it as `async def`")
    if isinstance(answer, Invalidate | Broadcast | Refresh | Publish):
        return (answer,)
    if answer is None or isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
        raise Unfit(f"the handler returned {type(answer).__name__}; return effects, yield them, or return None")
    return answer


def _add_scopes(effect: Invalidate, scopes: list[str]) -> None:
    try:
        for tag in effect.tags:
            scopes.append(tag_scope(tag))  # noqa: PERF401 - twice as fast as extend(map(…)) for one or two
        if effect.keys or effect.prefix is not None:
            prefixes = () if effect.prefix is None else (effect.prefix,)
            scopes.extend(scopes_to_invalidate(keys=effect.keys, prefixes=prefixes))
    except (CacheBusError, TypeError) as bad:
        raise Unfit(f"{effect!r}: {bad}") from bad
    if type(effect.tags) is str or type(effect.keys) is str:
        raise Unfit(f"{effect!r}: keys and tags are lists, write tags=[…]")


def _broadcast(effect: Broadcast) -> bytes:
    topic: Any = effect.topic
    if type(topic) is not str or not topic or not topic.isprintable():
        raise Unfit(f"Broadcast: topic {topic!r} must be text without control characters")
    try:
        message = _encode(effect)
    except (TypeError, ValueError, OverflowError, RecursionError) as unsupported:
        raise Unfit(f"Broadcast to {topic!r}: the data cannot become JSON: {unsupported}") from unsupported
    if len(message) > PAYLOAD_BYTES:
        raise Unfit(f"Broadcast to {topic!r}: {len(message):,} bytes, the limit is {PAYLOAD_BYTES:,}")
    return b"%b\n%b" % (topic.encode(), message)
