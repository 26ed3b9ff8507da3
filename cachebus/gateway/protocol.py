"""What a browser reads and writes: one form for every message, and the few requests a client may make. Pure.

    {"v": 1, "id": "epoch-clock", "type": "order.placed", "topic": "user:42", "ts": 1700000000000,
     "data": {…}, "fresh_after": "1700000000000123"}

and `"traceparent": "00-…"` where the gateway, or the worker, is traced.

What the gateway says itself has the same form, `"topic": null`, and a type that begins with `gateway.`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from cachebus.bus.feed import FeedRecord
from cachebus.tracing import Tracer

VERSION = 1
LARGEST_FRAME_BYTES = 4096
"""Of what a client sends: a hundred topics of the usual length."""
MOST_TOPICS = 100
MOST_FRAMES = 200
"""That a client may send in `FRAMES_S` seconds; pings are counted apart, with the same limit."""
FRAMES_S = 60.0
LONGEST_TOPIC = 200


class Position(NamedTuple):
    """Where in the feed something stands. Positions compare within an epoch only."""

    epoch: str
    clock: int

    @classmethod
    def of(cls, identity: str) -> Position | None:
        """Return the position an id names; None for what is no id."""
        epoch, dash, clock = identity.partition("-")
        if not dash or not (epoch + clock).isascii() or not epoch.isdigit() or not clock.isdigit() or len(clock) > 18:
            return None
        return cls(epoch, int(clock))


class EncodedMessage(NamedTuple):
    """A broadcast as it goes to browsers: encoded once, whoever reads it."""

    id: str
    before: str
    position: Position
    topic: str
    text: str
    fresh_after: str


class _Stamp(msgspec.Struct):
    fresh_after: str = ""


_stamp = msgspec.json.Decoder(_Stamp)


def message_of(record: FeedRecord) -> EncodedMessage | None:
    """Return what browsers are sent of a record of the feed; None for a record that is not ours to read."""
    position = Position.of(record.id)
    try:
        fresh_after = _stamp.decode(record.message).fresh_after
        text = f'{{"v":{VERSION},' + record.message[1:].decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return (
        None
        if position is None
        else EncodedMessage(record.id, record.before, position, record.topic, text, fresh_after)
    )


class _Trace(msgspec.Struct):
    traceparent: str = ""


_trace = msgspec.json.Decoder(_Trace)


def traced(record: FeedRecord, tracer: Tracer, clients: int) -> FeedRecord:
    """Return *record* as it is passed on within a span of this gateway, which *clients* browsers get."""
    try:
        parent = _trace.decode(record.message).traceparent
    except (msgspec.DecodeError, UnicodeDecodeError):
        return record
    with tracer.delivering(record.topic, parent, clients) as traceparent:
        if parent:
            before, _, after = record.message.rpartition(parent.encode())
            return record._replace(message=before + traceparent.encode() + after)
        return record._replace(message=b'%b,"traceparent":"%b"}' % (record.message[:-1], traceparent.encode()))


class Notice(NamedTuple):
    """What the gateway says itself."""

    id: str
    """Where its reader stands then; '' where that is not said."""
    text: str


def notice(what: str, identity: str, ts: int, fresh_after: str, **data: Any) -> Notice:
    """Return what the gateway says itself, as it is sent."""
    said = {"v": VERSION, "id": identity or None, "type": f"gateway.{what}", "topic": None, "ts": ts, "data": data}
    return Notice(identity, msgspec.json.encode({**said, "fresh_after": fresh_after}).decode())


class Hello(msgspec.Struct, tag_field="op", tag="hello", forbid_unknown_fields=True):
    """The first frame: who, what, and where the client was. Without a ticket, the cookie says who."""

    topics: list[str] = []
    last: str | None = None
    ticket: str | None = None


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """Follow more topics, from now on."""

    topics: list[str]


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Follow fewer topics."""

    topics: list[str]


Frame = Hello | Subscribe | Unsubscribe
_frame: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)


class Malformed(Exception):
    """A frame that cannot be read; the message names the field."""


def read_frame(text: str) -> Frame:
    """Return what a client asks. Raises: Malformed."""
    try:
        return _frame.decode(text)
    except msgspec.DecodeError as problem:
        raise Malformed(str(problem)) from None
