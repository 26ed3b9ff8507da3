"""Events as other programs send them."""

from __future__ import annotations

import datetime
from typing import Any, get_args

import msgspec
import pytest

from cachebus.bus.events import InvalidEvent, decode, decoder, encode
from tradesense.events import SETTINGS, MarketEvent, SettingName, SettingsEvent, TradeAction, TradeEvent
from tradesense.results import UserSettings

AT = datetime.datetime(2013, 3, 1, 15, 30, tzinfo=datetime.UTC)


def read(declared: Any, payload: bytes) -> Any:
    """Read a payload as the bus does."""
    return decode(decoder(declared, "test"), payload)


def test_the_specifications_form_is_enough() -> None:
    """A user and an action; everything else is optional."""
    event = read(TradeEvent, b'{"user_id": 123, "action": "new_trade"}')
    assert event == TradeEvent(123, "new_trade")
    assert read(SettingsEvent, b'{"user_id": 123}').changed == SETTINGS
    assert read(MarketEvent, b'{"symbol": "AAPL"}') == MarketEvent("AAPL")


@pytest.mark.parametrize("action", get_args(TradeAction))
def test_every_action_is_known(action: str) -> None:
    """A new, updated or deleted trade, and an import that is complete."""
    assert read(TradeEvent, msgspec.json.encode({"user_id": 1, "action": action})).action == action


def test_unknown_fields_are_tolerated() -> None:
    """A publisher may say more than we know."""
    payload = b'{"user_id": 1, "action": "new_trade", "source": "import", "rows": [1, 2]}'
    assert read(TradeEvent, payload) == TradeEvent(1, "new_trade")


@pytest.mark.parametrize(
    "event",
    [
        TradeEvent(1, "deleted_trade", trade_id=5, symbol="IBM", at=AT),
        SettingsEvent(1, ("grouping", "time_zone")),
        MarketEvent("IBM", datetime.date(2013, 3, 1)),
    ],
)
def test_what_is_published_is_what_arrives(event: Any) -> None:
    """Encoded by the bus and decoded to the type, it is equal."""
    assert read(type(event), encode(event)) == event


@pytest.mark.parametrize(
    ("declared", "payload", "named"),
    [
        (TradeEvent, b'{"action": "new_trade"}', "user_id"),
        (TradeEvent, b'{"user_id": 1}', "action"),
        (TradeEvent, b'{"user_id": 0, "action": "new_trade"}', r"\$\.user_id"),
        (TradeEvent, b'{"user_id": -4, "action": "new_trade"}', r"\$\.user_id"),
        (TradeEvent, b'{"user_id": "7", "action": "new_trade"}', r"\$\.user_id"),
        (TradeEvent, b'{"user_id": 99999999999999999999, "action": "new_trade"}', r"\$\.user_id"),
        (TradeEvent, b'{"user_id": 1, "action": "sold"}', r"\$\.action"),
        (TradeEvent, b'{"user_id": 1, "action": "new_trade", "symbol": "a b"}', r"\$\.symbol"),
        (TradeEvent, b'{"user_id": 1, "action": "new_trade", "at": "2013-03-01T15:30:00"}', r"\$\.at"),
        (TradeEvent, b'{"user_id": 1, "action": ', "truncated"),
        (SettingsEvent, b'{"user_id": 1, "changed": ["colour"]}', r"\$\.changed\[0\]"),
        (MarketEvent, b"{}", "symbol"),
        (MarketEvent, b'{"symbol": "AAPL", "day": "yesterday"}', r"\$\.day"),
    ],
)
def test_a_wrong_field_is_named(declared: Any, payload: bytes, named: str) -> None:
    """What is missing, of the wrong type or unknown stands in the reason."""
    with pytest.raises(InvalidEvent, match=named):
        read(declared, payload)


def test_the_settings_of_events_are_the_settings_there_are() -> None:
    """A setting that is added can be announced, too."""
    assert {"user_id", *get_args(SettingName)} == set(UserSettings.__struct_fields__)
