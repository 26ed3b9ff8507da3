"""Events as bytes and back: channels, patterns, validation. Pure."""

from __future__ import annotations

import datetime
import re
import zlib
from typing import Any, NamedTuple, Self

import msgspec

from cachebus.errors import ConfigurationError, PublishRefused

LONGEST_CHANNEL = 200
PAYLOAD_BYTES = 256 * 1024
"""The default limit of one event: what SQS and its like allow. Larger things belong in the database."""
BROADCAST_CHANNELS = "ws:"
"""Channels that broadcasts go out on; no event comes in there."""

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_MILLISECONDS_FROM = 10_000_000_000
"""Numbers from here on are milliseconds: as seconds this is the year 2286, as milliseconds April 1970."""


class InvalidEvent(ValueError):
    """The payload is not what the handler's type says; the message names the field. Running it again is useless."""


class Event(NamedTuple):
    """One event as it lies in the stream: the envelope of what a handler gets. A handler may take it second."""

    position: str
    """The stream's id, `milliseconds-number`, by the server's clock."""
    channel: str
    payload: bytes
    id: str = ""
    """The publisher's id, or the name the bridge gave a plain message; '' where a foreign XADD gave none."""
    key: str = ""
    attempt: int = 1

    @property
    def published_ms(self) -> int:
        """When the server took it, milliseconds of the epoch."""
        return int(self.position.partition("-")[0])


class Moment(datetime.datetime):
    """A field type for times as people send them: ISO 8601, epoch seconds or epoch milliseconds. Always aware."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the moment *value* stands for; ISO text without an offset is UTC. Raises: ValueError."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"Expected a time, got `{type(value).__name__}`")  # noqa: TRY004 - msgspec names the field only for this one
        if isinstance(value, str):
            moment = cls.fromisoformat(value)
            return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
        seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
        try:
            return cls.fromtimestamp(seconds, datetime.UTC)
        except (OverflowError, OSError):
            raise ValueError(f"{value} is not a time") from None


def _decode_hook(declared: type, value: object) -> object:
    if declared is Moment:
        return Moment.read(value)
    raise NotImplementedError(declared)


def decoder(declared: Any, what: str) -> msgspec.json.Decoder[Any]:
    """Return a decoder of JSON to *declared*. Raises: ConfigurationError where that cannot be read from JSON."""
    try:
        return msgspec.json.Decoder(declared, dec_hook=_decode_hook)
    except TypeError as unsupported:
        raise ConfigurationError(f"{what}: {declared!r} cannot be read from JSON: {unsupported}") from None


def decode(decoder: msgspec.json.Decoder[Any], payload: bytes) -> Any:
    """Return the event. Raises: InvalidEvent whose message names the field."""
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as invalid:
        raise InvalidEvent(str(invalid)) from None


def encode(event: Any, limit_bytes: int = PAYLOAD_BYTES) -> bytes:
    """Return *event* as JSON: a Struct, a dataclass, plain data, or bytes that are JSON already.

    Raises: PublishRefused when it is no JSON, cannot become JSON, or is longer than *limit_bytes*.
    """
    if isinstance(event, bytes | bytearray | memoryview):
        payload = bytes(event)
        try:
            msgspec.json.decode(payload, type=msgspec.Raw)
            payload.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
            raise PublishRefused(f"event: these bytes are not JSON: {malformed}") from None
    else:
        try:
            payload = msgspec.json.encode(event)
        except (TypeError, ValueError, OverflowError, RecursionError) as unsupported:
            raise PublishRefused(f"event: {type(event).__name__} cannot become JSON: {unsupported}") from None
    if len(payload) > limit_bytes:
        raise PublishRefused(
            f"event: {len(payload):,} bytes, the limit is {limit_bytes:,}; publish an id and let the handler look it up"
        )
    return payload


def channel_fault(channel: str) -> str:
    """Return why events cannot travel on *channel*, '' if they can."""
    if not channel or len(channel) > LONGEST_CHANNEL or _CONTROL.search(channel):
        return f"channel: {channel!r} must be 1 to {LONGEST_CHANNEL} characters without spaces"
    if channel.startswith((BROADCAST_CHANNELS, "{")):
        return f"channel: {channel!r} is kept for broadcasts (ws:…) or for the bus itself ({{…)"
    return ""


def shard_of(route: str, shards: int) -> int:
    """Return the shard of events with this key (or, without one, on this channel): CRC-32 modulo the number."""
    return zlib.crc32(route.encode()) % shards if shards > 1 else 0


class Pattern:
    """What a handler listens to: a channel, or `trade:*`, where `*` stands for any text."""

    def __init__(self, text: str) -> None:
        fault = channel_fault(text)
        if not fault and (text.startswith("*") or any(sign in text for sign in "?[]\\")):
            fault = f"channel: {text!r} must begin with a word, and knows no wildcard but '*'"
        if fault:
            raise ConfigurationError(fault)
        self.text = text
        self.wild = "*" in text
        self._match = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL).fullmatch

    def matches(self, channel: str) -> bool:
        """Return whether events on *channel* are meant."""
        return self._match(channel) is not None

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


Record = list[Any]
"""A record as the server sends it: `[id, [name, value, name, value, …]]`, all bytes."""


def channel_and_payload(record: Record) -> tuple[bytes, bytes]:
    """Return the two fields every event has. Raises: InvalidEvent naming the one that is missing."""
    fields = record[1]
    if len(fields) > 3 and fields[0] == b"channel" and fields[2] == b"payload":  # as `publish` and the bridge write it
        return fields[1], fields[3]
    named = fields_of(record)
    for name in (b"channel", b"payload"):
        if name not in named:
            raise InvalidEvent(f"the record has no field `{name.decode()}`; it needs `channel` and `payload`")
    return named[b"channel"], named[b"payload"]


def read_record(record: Record) -> Event:
    """Return the event of a stream record. Raises: InvalidEvent naming the field that is missing.

    What is not UTF-8 in the names of a foreign record becomes a replacement character.
    """
    channel, payload = channel_and_payload(record)
    named = fields_of(record)
    name, key = named.get(b"id", b""), named.get(b"key", b"")
    return Event(
        record[0].decode(),
        channel.decode(errors="replace"),
        payload,
        name.decode(errors="replace"),
        key.decode(errors="replace"),
    )


def fields_of(record: Record) -> dict[bytes, bytes]:
    """Return a record's fields by name; of a repeated one the last."""
    fields = record[1]
    return dict(zip(fields[::2], fields[1::2], strict=True))
