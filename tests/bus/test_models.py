"""Pydantic models as events: read by their own validator, published and broadcast by their own serialiser."""

from __future__ import annotations

import datetime
import json
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pydantic
import pydantic.dataclasses
import pytest

from cachebus import Broadcast, Bus, Cache, Effects, Publish, PublishRefused, on
from cachebus.bus.events import InvalidEvent, encode
from cachebus.testing.events import PublishedEvents


class Trade(pydantic.BaseModel):
    """An event."""

    user_id: int = pydantic.Field(alias="userId")
    at: datetime.datetime
    size: pydantic.PositiveInt = 1


class Opened(pydantic.BaseModel):
    """One of two."""

    kind: Literal["opened"] = "opened"


class Closed(pydantic.BaseModel):
    """The other."""

    kind: Literal["closed"] = "closed"
    why: str


class Wrapped(msgspec.Struct):
    """A model in a Struct."""

    trade: Trade


@pydantic.dataclasses.dataclass
class Order:
    """A Pydantic dataclass."""

    size: pydantic.PositiveInt


class Login(pydantic.BaseModel):
    """Holds a secret."""

    inner: list[pydantic.SecretStr]


NOW = datetime.datetime(2026, 1, 5, 9, tzinfo=datetime.UTC)
TRADE = Trade(userId=7, at=NOW)
TEXT = '{"userId": 7, "at": "2026-01-05T09:00:00Z", "more": 1}'


@pytest.mark.parametrize(
    ("declared", "text", "event"),
    [
        (Trade, TEXT, TRADE),
        (Trade, TEXT.replace("userId", "user_id"), TRADE),
        (list[Trade], f"[{TEXT}]", [TRADE]),
        (Opened | Closed, '{"kind": "closed", "why": "late"}', Closed(why="late")),
        (Annotated[Opened | Closed, pydantic.Field(discriminator="kind")], '{"kind": "opened"}', Opened()),
        (Trade | None, "null", None),
        (Wrapped, f'{{"trade": {TEXT}}}', Wrapped(TRADE)),
        (Order, '{"size": 3}', Order(3)),
    ],
)
def test_a_handler_takes_a_model(declared: Any, text: str, event: Any) -> None:
    """Also in lists, unions and Structs; under names and aliases; what it does not name is ignored."""
    assert on("a:b", declared)(lambda _event: None).decode(text.encode()) == event


@pytest.mark.parametrize(
    ("declared", "text", "message"),
    [
        (Trade, TEXT.replace("7", '"x"'), r"unable to parse string as an integer - at `\$\.userId`"),
        (list[Trade], f"[{TEXT}, {{}}]", r"Field required - at `\$\[1\]\.userId` \(and 1 more\)"),
        (Trade, "{", "Invalid JSON"),
        (Trade, "\udcff", "utf-8|Invalid JSON"),
        (Wrapped, '{"trade": {"userId": 7}}', r"Field required.*\.trade"),
        (Order, '{"size": 0}', r"greater than 0 - at `\$\.size`"),
    ],
)
def test_what_is_no_such_model_names_the_field(declared: Any, text: str, message: str) -> None:
    """One line, for the dead letter."""
    handler = on("a:b", declared)(lambda _event: None)
    with pytest.raises(InvalidEvent, match=message) as invalid:
        handler.decode(text.encode(errors="surrogateescape"))
    assert "\n" not in str(invalid.value)


@on("trades", Trade)
def traded(event: Trade) -> Effects:
    """Answer with models."""
    yield Broadcast("trades", "trade", data={"trade": event, "size": np.int64(event.size)})
    yield Publish("seen", event)


async def test_models_travel_from_publish_to_broadcast() -> None:
    """Published, handled, broadcast, published again: as the model writes itself, by its aliases."""
    async with Cache.memory() as cache:
        events = PublishedEvents(cache)
        await Bus(cache).publish("trades", TRADE)
        await events.handle(traded)
        written = {"userId": 7, "at": "2026-01-05T09:00:00Z", "size": 1}
        assert [event.data for event in events.published] == [written, written]
        assert [sent.data for sent in events.broadcasts] == [{"trade": written, "size": 1}]
        assert events.dead_letters == []


def test_models_and_rows_are_published_wherever_they_stand() -> None:
    """In dictionaries and Structs too."""
    sent = json.loads(encode({"trade": Wrapped(TRADE), "price": np.float32(1.5)}))
    assert sent == {"trade": {"trade": {"userId": 7, "at": "2026-01-05T09:00:00Z", "size": 1}}, "price": 1.5}


def test_a_secret_is_not_published_as_stars() -> None:
    """It would arrive as another value."""
    with pytest.raises(PublishRefused, match="field 'inner' of Login is a secret"):
        encode([Login(inner=["x"])])
