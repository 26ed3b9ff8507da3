"""Events as bytes and back: channels, patterns, validation. Pure."""

from __future__ import annotations

import datetime
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self, get_args, get_origin

import msgspec

from cachebus import foreign
from cachebus.errors import ConfigurationError, PublishRefused
from cachebus.templates import NO_UTF8, has_surrogate
from cachebus.tracing import TRACEPARENT_CHARACTERS

LONGEST_CHANNEL = 200
LONGEST_ID = 200
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
    traceparent: str = ""
    """Of the span that published it, where somebody traces. Source: W3C Trace Context."""
    by: str = ""
    """Who says to have published it: a process, a handler, or `plain PUBLISH`; '' where nobody does."""

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
    if foreign.is_validated(declared):
        return foreign.load_model_json(declared, msgspec.json.encode(value))
    raise NotImplementedError(declared)


def decoder(declared: Any, what: str) -> Callable[[bytes], Any]:
    """Return a decoder of JSON to *declared*: a Pydantic model by its own validator, everything else by msgspec.

    Raises: ConfigurationError where it cannot be read from JSON.
    """

    def described(kind: type) -> dict[str, Any]:
        """Called for classes msgspec does not know, which a decoder would refuse with the first event."""
        if kind is Moment:
            return {"type": "string"}
        if foreign.is_validated(kind):
            return {"model": kind.__name__}
        fix = foreign.way_out(kind) or "make it a msgspec.Struct, a dataclass or a Pydantic model"
        raise ConfigurationError(f"{what}: {kind.__name__} cannot be read from JSON; {fix}")

    try:
        if _is_of_models(declared):
            return foreign.adapted(declared)
        made: msgspec.json.Decoder[Any] = msgspec.json.Decoder(declared, dec_hook=_decode_hook)
        msgspec.json.schema(declared, schema_hook=described)
    except TypeError as unsupported:
        raise ConfigurationError(f"{what}: {declared!r} cannot be read from JSON: {unsupported}") from None
    return made.decode


def _is_of_models(declared: Any) -> bool:
    """Return whether it is a Pydantic model, or lists, dictionaries or unions with one."""
    return foreign.is_validated(get_origin(declared) or declared) or any(map(_is_of_models, get_args(declared)))


def decode(read: Callable[[bytes], Any], payload: bytes) -> Any:
    """Return the event, by a `decoder`. Raises: InvalidEvent whose message names the field."""
    try:
        return read(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as invalid:
        raise InvalidEvent(str(invalid)) from None


_encoded = msgspec.json.Encoder(enc_hook=foreign.plain_of).encode


def json_of(value: Any) -> bytes:
    """Return a value as JSON. Raises: TypeError, ValueError, OverflowError, RecursionError."""
    text = _encoded(value)
    # A number that JSON has no word for is written as null. Few events have a null, and only those are looked at.
    if b"null" in text and (lost := _lost_number(foreign.builtins_of(value), msgspec.json.decode(text), "")):
        raise ValueError(f"{lost}, which JSON cannot say; send None, or leave it out")
    return text


def _lost_number(value: Any, written: Any, path: str) -> str:
    """Return which number of *value* was written as null, '' where none was."""
    if isinstance(value, float) and written is None:
        return f"{f'field {path!r}' if path else 'it'} is {value}"
    inside: Iterable[tuple[Any, Any, str]] = ()
    if isinstance(value, dict) and isinstance(written, dict):
        inside = ((each, written.get(name), f"{path}.{name}" if path else str(name)) for name, each in value.items())
    elif isinstance(value, list | tuple) and isinstance(written, list):
        inside = ((each, said, f"{path}[{at}]") for at, (each, said) in enumerate(zip(value, written, strict=False)))
    return next(filter(None, (_lost_number(*each) for each in inside)), "")


def encode(event: Any, limit_bytes: int = PAYLOAD_BYTES) -> bytes:
    """Return *event* as JSON: a Struct, a dataclass, a Pydantic model, plain data, or JSON bytes.

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
            payload = json_of(event)
        except (TypeError, ValueError, OverflowError, RecursionError) as unsupported:
            raise PublishRefused(f"event: {type(event).__name__} cannot become JSON: {unsupported}") from None
    if len(payload) > limit_bytes:
        raise PublishRefused(
            f"event: {len(payload):,} bytes, the limit is {limit_bytes:,}; publish an id and let the handler look it up"
        )
    return payload


def envelope_fault(channel: object, key: object, id: object = None) -> str:  # noqa: A002 - the field's own name
    """Return why no event can travel under these names, '' if one can."""
    if fault := channel_fault(channel):
        return fault
    if key is not None and not isinstance(key, str):
        return f"key: {key!r} must be text, such as {f'user:{key}'!r}"
    if key is not None and has_surrogate(key):
        return f"key: {key!r} {NO_UTF8}"
    if id is not None and not (isinstance(id, str) and 0 < len(id) <= LONGEST_ID):
        return f"id: {id!r} must be text of 1 to {LONGEST_ID} characters"
    if id is not None and has_surrogate(id):
        return f"id: {id!r} {NO_UTF8}"
    return ""


def channel_fault(channel: object) -> str:
    """Return why events cannot travel on *channel*, '' if they can."""
    if not isinstance(channel, str) or not channel or len(channel) > LONGEST_CHANNEL or _CONTROL.search(channel):
        return f"channel: {channel!r} must be 1 to {LONGEST_CHANNEL} characters without spaces"
    if has_surrogate(channel):
        return f"channel: {channel!r} {NO_UTF8}"
    if channel.startswith((BROADCAST_CHANNELS, "{")):
        return f"channel: {channel!r} is kept for broadcasts (ws:…) or for the bus itself ({{…)"
    return ""


def shard_of(route: str, shards: int) -> int:
    """Return the shard of events with this key (or, without one, on this channel): CRC-32 modulo the number."""
    return zlib.crc32(route.encode()) % shards if shards > 1 else 0


class Pattern:
    """What a handler listens to: a channel, or `orders:*`, where `*` stands for any text."""

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


class EventRecord:
    """One record of the events stream, parsed once on its way through a worker. `fault` says why it is no event."""

    __slots__ = ("_event", "_fields", "channel", "fault", "payload", "position")

    def __init__(self, entry: Sequence[Any]) -> None:
        """Read an entry as the server sends it: `[id, [name, value, name, value, …]]`, all bytes."""
        self.position: bytes = entry[0]
        self._fields: Sequence[bytes] = entry[1]
        self._event: Event | None = None
        self.fault = ""
        fields = self._fields
        if (
            len(fields) > 3 and fields[0] == b"channel" and fields[2] == b"payload"
        ):  # as `publish` and the bridge write it
            self.channel, self.payload = fields[1], fields[3]
            return
        named = self.fields()
        missing = next((name for name in ("channel", "payload") if name.encode() not in named), "")
        if missing:
            self.fault = f"the record has no field `{missing}`; it needs `channel` and `payload`"
            self.channel, self.payload = b"", b" ".join(fields)  # for its dead letter
        else:
            self.channel, self.payload = named[b"channel"], named[b"payload"]

    @property
    def id(self) -> str:
        """The publisher's id of the event, '' where it gave none."""
        fields = self._fields
        if len(fields) > 5 and fields[4] == b"id":
            return fields[5].decode(errors="replace")
        return self.event.id

    def fields(self) -> dict[bytes, bytes]:
        """Return the fields by name; of a repeated one the last."""
        return dict(zip(self._fields[::2], self._fields[1::2], strict=True))

    @property
    def event(self) -> Event:
        """The event in its envelope. What is not UTF-8 in the names of a foreign record is replaced."""
        if self._event is None:
            named = {} if self.fault else self.fields()
            self._event = Event(
                self.position.decode(),
                self.channel.decode(errors="replace"),
                self.payload,
                named.get(b"id", b"").decode(errors="replace"),
                named.get(b"key", b"").decode(errors="replace"),
                traceparent=named.get(b"traceparent", b"")[:TRACEPARENT_CHARACTERS].decode(errors="replace"),
                by=named.get(b"by", b"")[:LONGEST_ID].decode(errors="replace"),
            )
        return self._event


def read_record(entry: Sequence[Any]) -> Event:
    """Return the event of a stream entry. Raises: InvalidEvent naming the field that is missing."""
    record = EventRecord(entry)
    if record.fault:
        raise InvalidEvent(record.fault)
    return record.event


def order(position: bytes) -> tuple[int, int]:
    """Return a stream id as numbers, in the stream's order."""
    milliseconds, _, number = position.partition(b"-")
    return int(milliseconds), int(number)
