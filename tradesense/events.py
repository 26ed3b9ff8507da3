"""The events other applications publish. Fields we do not know are ignored; a wrong one is named by its error.

Hints, not data: what happened lies in the database before the event is published, and views read it there.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, get_args

import msgspec

UserId = Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=12, pattern="^[A-Z.]+$")]
Instant = Annotated[datetime.datetime, msgspec.Meta(tz=True)]
"""ISO 8601 with an offset."""

TradeAction = Literal["new_trade", "updated_trade", "deleted_trade", "import_completed"]
SettingName = Literal["time_zone", "grouping", "cost_basis", "risk_free_rate", "theme"]
SETTINGS: tuple[SettingName, ...] = get_args(SettingName)


class TradeEvent(msgspec.Struct, frozen=True):
    """`trade:updates`: trades of one user changed. `{"user_id": 123, "action": "new_trade"}` is enough."""

    user_id: UserId
    action: TradeAction
    trade_id: int | None = None
    symbol: Symbol | None = None
    at: Instant | None = None
    """When it happened, where the publisher says so."""


class SettingsEvent(msgspec.Struct, frozen=True):
    """`settings:updates`: a user changed settings. Without `changed`, it may have been any of them."""

    user_id: UserId
    changed: tuple[SettingName, ...] = SETTINGS


class MarketEvent(msgspec.Struct, frozen=True):
    """`market:bars`: a symbol has a new or corrected bar, of this day where the publisher says so."""

    symbol: Symbol
    day: datetime.date | None = None
