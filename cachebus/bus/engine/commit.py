"""What one commit writes, gathered event by event: effects as bytes, ready to be sent. Pure."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cachebus.bus.effects import IF_WORTH, Answer, Broadcast, Effect, Invalidate, Publish, Refresh, delay_of
from cachebus.bus.events import PAYLOAD_BYTES, Event, EventRecord, encode, envelope_fault, json_of, shard_of
from cachebus.bus.handlers import Debounce
from cachebus.bus.letters import DeadLetter, DelayedItem, RetryItem
from cachebus.errors import CacheBusError
from cachebus.freshness.cause import LONGEST
from cachebus.freshness.scopes import checked_key_scope, scopes_to_invalidate, tag_scope
from cachebus.templates import unmarked

if TYPE_CHECKING:
    from cachebus.redis.connection import Argument

MOST_ARGUMENTS = 900
"""A script takes at most 1,000 arguments; the rest are the commit's own. Above that Redis is held too long."""
ENOUGH_ARGUMENTS = 500
"""A plan that has grown this far is committed; whatever the next event adds still fits, up to MOST_ARGUMENTS."""
ENOUGH_EVENTS = 1000
ENOUGH_BYTES = 1_000_000

Sign = Callable[[str, str, bytes], Sequence[str | int]]
"""From channel, id and payload to the fields of a signature, or none."""

_PLAIN = frozenset({GeneratorType, list, tuple})
"""What handlers usually answer with; anything else is looked at twice."""
_NONE: tuple[dict[str, bytes], list[Publication], list[Delayed]] = ({}, [], [])


class Unfit(Exception):
    """A handler answered with something that cannot be written. Running it again would not change that."""


class TracedEffects(list[Effect]):
    """What a handler answered within a span: its effects say which."""

    __slots__ = ("traceparent",)

    def __init__(self, effects: Iterable[Effect], traceparent: str) -> None:
        super().__init__(effects)
        self.traceparent = traceparent


class Publication(NamedTuple):
    """A further event, as the commit takes it; what is '' is left out."""

    shard: int
    channel: str
    payload: bytes
    id: str
    key: str
    timestamp: str
    signature: str
    traceparent: str = ""
    by: str = ""


class Window(NamedTuple):
    """What came for a debounced handler, as the commit takes it: it opens a window, or moves the end of an open one."""

    name: str
    first_ms: int
    newest_ms: int
    quiet_ms: int
    most_ms: int
    run: bytes
    """The name of the run in the retries, and the run itself: the handler on the newest event."""


class Delayed(NamedTuple):
    """An event that is to be published later, as the commit takes it."""

    id: str
    delay_ms: int
    item: bytes


class Plan:
    """Everything a batch leads to, and the position it moves the shard to."""

    __slots__ = (
        "again",
        "arguments",
        "broadcasts",
        "bytes",
        "causes",
        "dead",
        "delayed",
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
        "windows",
    )

    def __init__(self, shards: int = 1, sign: Sign | None = None) -> None:
        self.shards = shards
        self.sign = sign
        self.position = b""
        """The last event in it; empty where it moves no position."""
        self.first = b""
        self.opened = 0.0
        self.events = 0
        self.scopes: dict[str, str] = {}
        """Each with the handler that named it last."""
        self.causes: list[tuple[int, str, Sequence[EventRecord | Event]]] = []
        """Of the scopes, in their order: how many, the handler, its events."""
        self.broadcasts: list[bytes] = []
        self.refreshes: dict[str, bytes] = {}
        self.publishes: list[Publication] = []
        self.retries: list[tuple[str, int, bytes]] = []
        self.again: list[tuple[str, int]] = []
        self.done: list[str] = []
        self.dead: list[DeadLetter] = []
        self.marks: list[str] = []
        self.windows: dict[str, Window] = {}
        self.delayed: list[Delayed] = []
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

    def add(self, answer: Answer, handler: str = "", events: Sequence[EventRecord | Event] = ()) -> None:
        """Take in what a handler answered to *events*, all of it or (raising) nothing.

        Runs the handler's generator. Raises: Unfit, or whatever the generator raises.
        """
        if answer is None:
            return
        scopes, broadcasts, others = _sorted_out(answer)
        refreshes, publishes, delayed = self._others(others, scopes, handler) if others else _NONE
        if type(answer) is TracedEffects:
            broadcasts = [_traced_broadcast(broadcast, answer.traceparent) for broadcast in broadcasts]
            refreshes = {key: b"%b\n%b" % (each, answer.traceparent.encode()) for key, each in refreshes.items()}
            publishes = [each._replace(traceparent=answer.traceparent) for each in publishes]
            delayed = [_traced_delayed(each, answer.traceparent) for each in delayed]
        arguments = len(scopes) + len(broadcasts) + 2 * len(refreshes) + len(Publication._fields) * len(publishes)
        arguments += len(Delayed._fields) * len(delayed)
        if self.arguments + arguments > MOST_ARGUMENTS:
            raise Unfit(f"too many effects: {arguments} arguments, {MOST_ARGUMENTS - ENOUGH_ARGUMENTS} are sure to fit")
        known = self.scopes
        if scopes:
            before = len(known)
            for scope in scopes:
                known[scope] = handler
            named = len(known) - before
            arguments -= len(scopes) - named
            self.causes.append((named, handler, events))
        self.arguments += arguments
        for broadcast in broadcasts:
            self.bytes += len(broadcast)
        self.broadcasts += broadcasts
        if others:
            self.refreshes.update(refreshes)
            self.publishes += publishes
            self.delayed += delayed
            self.bytes += sum(len(each.payload) for each in publishes) + sum(len(each.item) for each in delayed)

    def retry(self, item: RetryItem, delay_ms: int, *, attempts: int = 1) -> None:
        """Have a handler run on an event again; *attempts* were made."""
        blob = b"%d\n" % attempts + msgspec.msgpack.encode(item)
        self.retries.append((item.name, delay_ms, blob))
        self.arguments += 3
        self.bytes += len(blob)

    def debounce(self, name: str, published_ms: int, debounce: Debounce, item: RetryItem) -> None:
        """Have a handler run on an event once no newer one of the same *name* has come for a while."""
        run = f"{item.name}\n".encode() + msgspec.msgpack.encode(item)
        known = self.windows.get(name)
        self.windows[name] = Window(
            name, known.first_ms if known else published_ms, published_ms, debounce.quiet_ms, debounce.most_ms, run
        )
        self.arguments += 0 if known else len(Window._fields)
        self.bytes += len(run) - (len(known.run) if known else 0)

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
        """Return the arguments of `commit.lua` after its own: eleven counts, that many of each, and the causes."""
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
            [part for window in self.windows.values() for part in window],
            [part for each in self.delayed for part in each],
        ]
        counts = [
            *(len(self.scopes), len(self.broadcasts), len(self.refreshes), len(self.retries), len(self.again)),
            *(len(self.done), len(self.dead), len(self.publishes), len(self.marks)),
            *(len(self.windows), len(self.delayed)),
        ]
        return [*counts, *(argument for section in sections for argument in section), self._causes()]

    def _causes(self) -> bytes:
        """Return why each scope is in it, as the journal keeps that (`freshness.cause`)."""
        return json_of(
            [
                (0 if later else named, "event", handler, _name_of(event))
                for named, handler, events in self.causes
                for later, event in enumerate(events)
            ]
        )

    def _others(
        self, others: Iterable[Refresh | Publish], scopes: list[str], handler: str
    ) -> tuple[dict[str, bytes], list[Publication], list[Delayed]]:
        refreshes: dict[str, bytes] = {}
        publishes: list[Publication] = []
        delayed: list[Delayed] = []
        for effect in others:
            try:
                if isinstance(effect, Refresh):
                    key = effect.view.key(*effect.args, **effect.kwargs)
                    scopes.append(checked_key_scope(unmarked(key)))
                    arguments = effect.view.encode_arguments(*effect.args, **effect.kwargs)
                    if not effect.worth or key not in refreshes:  # one that is loaded in any case counts for both
                        name = f"{IF_WORTH}{effect.view.name}" if effect.worth else effect.view.name
                        refreshes[key] = name.encode() + b"\n" + arguments
                elif effect.after is not None and (delay_ms := delay_of(effect.after, "after")):
                    delayed.append(_delayed(effect, delay_ms, handler))
                else:
                    publishes.append(self._publish(effect, handler))
            except (TypeError, ValueError, AttributeError, CacheBusError) as bad:
                raise Unfit(f"{effect!r}: {bad}") from bad
        return refreshes, publishes, delayed

    def _publish(self, effect: Publish, handler: str) -> Publication:
        if fault := envelope_fault(effect.channel, effect.key):
            raise Unfit(fault)
        if effect.id is not None and effect.after is None:
            raise Unfit("id: it names an event that waits; add after=, or leave it out")
        payload, name = encode(effect.event), effect.id or secrets.token_hex(12)
        signed = self.sign(effect.channel, name, payload) if self.sign is not None else ()
        _, stamp, _, signature = signed or ("", "", "", "")
        shard = shard_of(effect.key or effect.channel, self.shards)
        key = effect.key or ""
        return Publication(shard, effect.channel, payload, name, key, str(stamp), str(signature), by=handler[:LONGEST])


def _delayed(effect: Publish, delay_ms: int, handler: str) -> Delayed:
    if fault := envelope_fault(effect.channel, effect.key, effect.id):
        raise Unfit(fault)
    item = DelayedItem(effect.channel, encode(effect.event), effect.key or "", by=handler[:LONGEST])
    return Delayed(effect.id or secrets.token_hex(12), delay_ms, msgspec.msgpack.encode(item))


def _name_of(event: EventRecord | Event) -> str:
    """Return the id of an event; of a foreign one without any, its place in the stream."""
    position = event.position
    return event.id[:LONGEST] or (position if isinstance(position, str) else position.decode())


def _traced_broadcast(broadcast: bytes, traceparent: str) -> bytes:
    return b'%b,"traceparent":"%b"}' % (broadcast[:-1], traceparent.encode())


def _traced_delayed(delayed: Delayed, traceparent: str) -> Delayed:
    item = msgspec.msgpack.decode(delayed.item, type=DelayedItem)
    return delayed._replace(item=msgspec.msgpack.encode(msgspec.structs.replace(item, traceparent=traceparent)))


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
        for tag in (effect.tags,) if isinstance(effect.tags, str) else effect.tags:
            scopes.append(tag_scope(tag))  # noqa: PERF401 - twice as fast as extend(map(…)) for one or two
        if effect.keys or effect.prefix is not None:
            prefixes = () if effect.prefix is None else (effect.prefix,)
            scopes.extend(scopes_to_invalidate(keys=effect.keys, prefixes=prefixes))
    except (CacheBusError, TypeError) as bad:
        raise Unfit(f"{effect!r}: {bad}") from bad


def _broadcast(effect: Broadcast) -> bytes:
    topic: Any = effect.topic
    if type(topic) is not str or not topic or not topic.isprintable():
        raise Unfit(f"Broadcast: topic {topic!r} must be text without control characters")
    try:
        message = json_of(effect)
    except (TypeError, ValueError, OverflowError, RecursionError) as unsupported:
        raise Unfit(f"Broadcast to {topic!r}: the data cannot become JSON: {unsupported}") from unsupported
    if len(message) > PAYLOAD_BYTES:
        raise Unfit(f"Broadcast to {topic!r}: {len(message):,} bytes, the limit is {PAYLOAD_BYTES:,}")
    return b"%b\n%b" % (topic.encode(), message)
