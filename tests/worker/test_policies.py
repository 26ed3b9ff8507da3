"""What the application's handlers say, checked without a worker and without Redis."""

from __future__ import annotations

from typing import Any

import pytest

from cachebus.bus.effects import Broadcast, Invalidate, Refresh
from handlers.market import bar_arrived
from handlers.settings import settings_changed
from handlers.trades import trade_changed
from tradesense import views
from tradesense.events import MarketEvent, SettingsEvent, TradeEvent
from tradesense.results import CostBasis

CALLS: dict[Any, tuple[Any, ...]] = {
    views.user_settings: (7,),
    views.user_profile: (7,),
    views.portfolio_summary: (7, CostBasis.FIFO),
    views.trade_analytics: (7, CostBasis.FIFO, "UTC", "month"),
    views.risk: (7, 0.02),
    views.market_data: ("AAPL",),
    views.price_history: ("AAPL",),
    views.statistics: (),
    views.reference_data: (),
}
"""A call of every view, for user 7 or AAPL."""

OTHERS: dict[Any, tuple[Any, ...]] = {
    view: tuple({7: 71, "AAPL": "AAP"}.get(argument, argument) for argument in arguments)
    for view, arguments in CALLS.items()
    if 7 in arguments or "AAPL" in arguments
}
"""The same for user 71 and AAP, whose names begin alike."""


def made_old(effects: list[Any], calls: dict[Any, tuple[Any, ...]]) -> set[Any]:
    """Return the views of which a call is invalidated."""
    tags = {tag for effect in effects if isinstance(effect, Invalidate) for tag in effect.tags}
    return {view for view, arguments in calls.items() if tags & set(view.tags(*arguments))}


def test_every_view_is_looked_at() -> None:
    """A view that is added must be added here, so that somebody decides what makes it old."""
    assert set(CALLS) == set(views.cache.views.values())


def test_a_trade_makes_old_what_trades_shape() -> None:
    """Everything computed from the user's trades, and nothing of somebody else's."""
    effects = list(trade_changed(TradeEvent(7, "new_trade", 1, "AAPL")) or ())
    shaped = {views.user_profile, views.portfolio_summary, views.trade_analytics, views.risk, views.statistics}
    assert made_old(effects, CALLS) == shaped
    assert made_old(effects, OTHERS) == set()


@pytest.mark.parametrize("action", ["new_trade", "updated_trade", "deleted_trade", "import_completed"])
def test_a_trade_is_told_to_its_user_and_the_portfolio_computed_anew(action: Any) -> None:
    """One broadcast on the user's topic, named by the action; either portfolio refreshed, where it is likely read."""
    effects = list(trade_changed(TradeEvent(7, action)) or ())
    told = [effect for effect in effects if isinstance(effect, Broadcast)]
    assert [(broadcast.topic, broadcast.type) for broadcast in told] == [("user:7", f"trade.{action}")]
    refreshed = [effect for effect in effects if isinstance(effect, Refresh)]
    assert refreshed == [Refresh(views.portfolio_summary, 7, basis, worth=True) for basis in CostBasis]


def test_a_change_of_settings_makes_old_the_settings_and_nothing_else() -> None:
    """Figures are cached under the settings that shape them, so they stay right."""
    effects = list(settings_changed(SettingsEvent(7, ("grouping",))) or ())
    assert made_old(effects, CALLS) == {views.user_settings}
    assert made_old(effects, OTHERS) == set()
    assert Broadcast("user:7", "settings.changed", {"changed": ("grouping",)}) in effects


def test_a_bar_makes_old_the_symbol_and_what_is_valued_at_closes() -> None:
    """The symbol's own data, and portfolios; another symbol's data stay."""
    effects = list(bar_arrived(MarketEvent("AAPL")) or ())
    valued = {views.portfolio_summary, views.risk, views.reference_data}
    assert made_old(effects, CALLS) == {views.market_data, views.price_history, *valued}
    assert made_old(effects, OTHERS) & {views.market_data} == set()
    assert [effect.topic for effect in effects if isinstance(effect, Broadcast)] == ["market:AAPL"]
