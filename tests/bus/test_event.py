"""Events as bytes: what is accepted, what is refused, and that the reason names the field."""

from __future__ import annotations

import datetime
import math
from typing import Any, Literal

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachebus.bus.events import Event, InvalidEvent, Moment, Pattern, decode, decoder, encode, read_record
from cachebus.errors import ConfigurationError, PublishRefused


class TradeEvent(msgspec.Struct):
    user_id: int
    action: Literal["new_trade", "trade_deleted"]
    at: Moment | None = None


class Quote(msgspec.Struct, rename="camel"):
    bid: float | None
    ask_price: float


class Priced(pydantic.BaseModel):
    price: float
    note: str | None = None


class Spelt(Priced, ser_json_inf_nan="strings"):
    pass


TRADE = decoder(TradeEvent, "test")


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b'{"action": "new_trade"}', "user_id"),
        (b'{"user_id": "abc", "action": "new_trade"}', "$.user_id"),
        (b'{"user_id": 1, "action": "exploded"}', "$.action"),
        (b'{"user_id": 1, "action": "new_trade", "at": "yesterday"}', "$.at"),
        (b'{"user_id": 1, "action": "new_trade", "at": 1e300}', "$.at"),
        (b'{"user_id": 1, "action": "new_trade", "at": true}', "$.at"),
        (b"[1, 2]", "object"),
        (b'{"user_id": 1', "truncated"),
        (b"\x00\xff\xfe", "malformed"),
        (b"", "truncated"),
    ],
)
def test_the_reason_for_refusing_an_event_names_the_field(payload: bytes, field: str) -> None:
    """Bad JSON, a wrong type, an unknown action, a missing field: the message says which."""
    with pytest.raises(InvalidEvent, match=field.replace("$", r"\$")):
        decode(TRADE, payload)


def test_fields_a_handler_does_not_know_are_ignored() -> None:
    """A publisher that is a version ahead is understood."""
    event = decode(TRADE, b'{"user_id": 1, "action": "new_trade", "version": 2, "extra": {"deep": [1]}}')
    assert event == TradeEvent(1, "new_trade")


@pytest.mark.parametrize(
    "text",
    [b"1700000000", b"1700000000.0", b"1700000000000", b'"2023-11-14T22:13:20Z"', b'"2023-11-14T23:13:20+01:00"',
     b'"2023-11-14T22:13:20"'],
)  # fmt: skip
def test_a_moment_is_read_from_seconds_milliseconds_and_iso_text(text: bytes) -> None:
    """All ways people write a time are one moment, aware of its zone."""
    event = decode(TRADE, b'{"user_id": 1, "action": "new_trade", "at": ' + text + b"}")
    assert event.at == datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_make_decoding_fail_otherwise_than_invalid(payload: bytes) -> None:
    """Whatever arrives is a valid event of the right type or InvalidEvent, never another error."""
    try:
        event = decode(TRADE, payload)
    except InvalidEvent:
        return
    assert isinstance(event, TradeEvent)


def test_json_nested_beyond_reason_is_invalid_and_not_a_crash() -> None:
    """A hundred thousand open brackets are refused like any other bad event."""
    with pytest.raises(InvalidEvent):
        decode(decoder(Any, "test"), b"[" * 100_000)


@pytest.mark.parametrize("event", [b"{", b"\xff\xfe", b'"\xff"', object(), float, {"a": {1, object()}}])
def test_what_is_not_json_is_not_published(event: Any) -> None:
    """Bytes that are no JSON and values that cannot become JSON are refused, nothing is sent."""
    with pytest.raises(PublishRefused, match="event"):
        encode(event)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"at": None, "legs": [{"price": 1.5}, {"price": math.nan}]}, r"field 'legs\[1\].price' is nan"),
        (Quote(None, math.inf), "field 'askPrice' is inf"),
        ([None, np.float32("nan")], r"field '\[1\]' is nan"),
        ({"quote": Priced(price=-math.inf)}, "field 'quote.price' is -inf"),
        (math.nan, "it is nan"),
    ],
)
def test_a_number_that_json_cannot_say_is_refused_by_its_field(event: Any, said: str) -> None:
    """It would arrive as null. What is None arrives as null still, and a model says such a number in its own way."""
    with pytest.raises(PublishRefused, match=f"^event: .* cannot become JSON: {said}, .* send None, or leave it out"):
        encode(event)
    assert encode({"quote": Quote(None, 1.0), "why": "null"}) == b'{"quote":{"bid":null,"askPrice":1.0},"why":"null"}'
    assert encode(Spelt(price=math.nan)) == b'{"price":"NaN","note":null}'


def test_an_event_over_the_limit_is_refused_with_both_sizes() -> None:
    """The refusal says how long it is and how long it may be."""
    with pytest.raises(PublishRefused, match="1,002 bytes, the limit is 1,000"):
        encode("x" * 1000, 1000)


@pytest.mark.parametrize("text", ["*", "", "trade updates", "ws:user:7", "{cachebus}:events", "tr[ab]", "t?", "a\nb"])
def test_a_pattern_that_cannot_work_is_refused_when_it_is_written(text: str) -> None:
    """`*` alone, other wildcards, and the bus's own channels are configuration errors."""
    with pytest.raises(ConfigurationError, match="channel"):
        Pattern(text)


def test_a_star_stands_for_any_text_and_nothing_else_is_special() -> None:
    """`trade:*` matches what Redis' own pattern would."""
    pattern = Pattern("trade:*")
    assert [pattern.matches(c) for c in ("trade:updates", "trade:", "trades:x", "xtrade:y", "trade:a:b")] == [
        *(True, True, False, False, True)
    ]
    assert not Pattern("a.b").matches("axb")


def test_a_foreign_record_needs_channel_and_payload() -> None:
    """A record of another program is an event if it has both, and says what it lacks if not."""
    record = [b"5-1", [b"payload", b"{}", b"channel", b"c", b"note", b"x"]]
    assert read_record(record) == Event("5-1", "c", b"{}")
    assert read_record(record).published_ms == 5
    with pytest.raises(InvalidEvent, match="payload"):
        read_record([b"5-1", [b"channel", b"c"]])
    assert read_record([b"5-1", [b"channel", b"\xff", b"payload", b"{}"]]).channel == "\ufffd"
