"""The cached views: the specification's lifetimes, and what reaches whom, on a real server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cachebus import Cache, CacheSettings
from cachebus.bus.effects import Invalidate
from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer
from handlers.market import bar_arrived
from handlers.settings import settings_changed
from handlers.trades import trade_changed
from tests.tradesense.conftest import World
from tests.tradesense.test_recording import BAR
from tradesense import recording, views
from tradesense.events import MarketEvent, SettingsEvent, TradeEvent
from tradesense.results import CostBasis, Grouping

MINUTES = {
    views.trade_analytics: 5,
    views.portfolio_summary: 2,
    views.market_data: 1,
    views.price_history: 1,
    views.user_profile: 10,
    views.statistics: 5,
    views.user_settings: 10,
    views.reference_data: 60,
    views.risk: 5,
}


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """A Valkey of one's own."""
    with PrivateServer.start("appendonly no") as running:
        yield running


@pytest.fixture
async def cache(server: PrivateServer, world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cache]:
    """The application's cache, connected to that server in a namespace of this test's own."""
    settings = CacheSettings(url=server.url, namespace=f"t{secrets.token_hex(4)}")
    monkeypatch.setattr(views.cache, "_settings", settings)
    monkeypatch.setattr(views.cache, "_names", Names(settings.namespace))
    async with views.cache:
        yield views.cache


async def handle(cache: Cache, effects: Any) -> None:
    """Do what the worker does with a handler's effects, as far as old values are concerned."""
    for effect in effects:
        if isinstance(effect, Invalidate):
            await cache.invalidate(tags=effect.tags)


def loads(view: Any) -> int:
    """Return how often a view was loaded in this process."""
    return int(view.stats.loads)


def test_lifetimes_are_those_of_the_specification() -> None:
    """Each view's TTL, and no view without one."""
    assert {view: view.policy.ttl_ms / 60_000 for view in views.cache.views.values()} == MINUTES


def test_nobody_can_change_what_others_get() -> None:
    """Every result is frozen all through, so that memory hands out one object to all."""
    assert all(view.codec.shared for view in MINUTES)


async def test_every_view_is_loaded_once_and_then_served(cache: Cache) -> None:
    """Two reads of everything: one load of each view, and equal values."""
    before = {view: loads(view) for view in MINUTES}
    pages = (
        lambda: views.portfolio(7),
        lambda: views.analytics(7),
        lambda: views.risk_figures(7),
        lambda: views.user_profile(7),
        lambda: views.market_data("AAPL"),
        lambda: views.price_history("AAPL"),
        views.statistics,
        views.reference_data,
    )
    first = [await page() for page in pages]
    assert [await page() for page in pages] == first
    assert {view: loads(view) - count for view, count in before.items()} == dict.fromkeys(MINUTES, 1)


async def test_a_trade_reaches_everything_that_trades_shape(cache: Cache) -> None:
    """After its event, portfolio, analytics, risk, profile and statistics show it; another user's views stay."""
    pages = (views.portfolio, views.analytics, views.risk_figures, views.user_profile)
    before = [await page(7) for page in pages]
    overall, other = await views.statistics(), await views.portfolio(8)
    trade_id = await recording.record_trade(7, "IBM", "buy", 500, "200.00")
    assert [await page(7) for page in pages] == before
    untouched = loads(views.portfolio_summary)
    await handle(cache, trade_changed(TradeEvent(7, "new_trade", trade_id=trade_id)))
    assert await views.portfolio(8) == other
    assert loads(views.portfolio_summary) == untouched
    after = [await page(7) for page in pages]
    assert all(new != old for new, old in zip(after, before, strict=True))
    with cache.reading(strict=True):
        assert (await views.statistics()).trades == overall.trades + 1


async def test_a_setting_reaches_exactly_what_it_shapes(cache: Cache) -> None:
    """Grouping changes the analytics' periods at once; the portfolio and the risk are not even loaded again."""
    await recording.change_settings(7, grouping="day", time_zone="America/New_York", cost_basis="fifo")
    by_day, _, _ = await views.analytics(7), await views.portfolio(7), await views.risk_figures(7)
    counts = loads(views.portfolio_summary), loads(views.risk)
    await recording.change_settings(7, grouping="month")
    await handle(cache, settings_changed(SettingsEvent(7, ("grouping",))))
    by_month = await views.analytics(7)
    assert all(period.begins.day == 1 for period in by_month.periods)
    assert len(by_month.periods) < len(by_day.periods)
    assert by_month.realized_cents == by_day.realized_cents
    await views.portfolio(7)
    await views.risk_figures(7)
    assert (loads(views.portfolio_summary), loads(views.risk)) == counts


async def test_the_time_zone_changes_the_grouping(cache: Cache) -> None:
    """The same user's profit by day, in New York and in Tokyo: other days, the same sum."""
    found = []
    for zone in ("America/New_York", "Asia/Tokyo"):
        await recording.change_settings(7, time_zone=zone, grouping="day")
        await handle(cache, settings_changed(SettingsEvent(7, ("time_zone", "grouping"))))
        found.append(await views.analytics(7))
    assert [period.begins for period in found[0].periods] != [period.begins for period in found[1].periods]
    assert found[0].realized_cents == found[1].realized_cents


async def test_a_going_back_to_old_settings_finds_the_old_figures(cache: Cache) -> None:
    """Figures are kept under the settings that shaped them: no load for settings that were in force before."""
    for grouping in ("day", "week"):
        await recording.change_settings(7, grouping=grouping)
        await handle(cache, settings_changed(SettingsEvent(7, ("grouping",))))
        await views.analytics(7)
    count = loads(views.trade_analytics)
    await recording.change_settings(7, grouping="day")
    await handle(cache, settings_changed(SettingsEvent(7, ("grouping",))))
    await views.analytics(7)
    assert loads(views.trade_analytics) == count


async def test_a_bar_reaches_its_symbol_and_what_is_valued_at_closes(cache: Cache) -> None:
    """Market data, portfolio and risk show it; another symbol's data and the analytics are not loaded again."""
    before = [await views.market_data("AAPL"), await views.portfolio(7), await views.risk_figures(7)]
    await views.market_data("IBM")
    await views.analytics(7)
    counts = loads(views.market_data), loads(views.trade_analytics)
    await recording.append_bar("AAPL", BAR)
    await handle(cache, bar_arrived(MarketEvent("AAPL", BAR.day)))
    after = [await views.market_data("AAPL"), await views.portfolio(7), await views.risk_figures(7)]
    assert all(new != old for new, old in zip(after, before, strict=True))
    await views.market_data("IBM")
    await views.analytics(7)
    assert (loads(views.market_data), loads(views.trade_analytics)) == (counts[0] + 1, counts[1])


async def test_the_bare_loader_needs_no_cache(world: World) -> None:
    """`view.load` runs the query and touches no server: what a schedule or a test may want."""
    assert views.cache.reader is None
    with pytest.raises(LookupError):
        await views.user_profile.load(0)
    assert (await views.portfolio_summary.load(0, CostBasis.FIFO)).trades == 0
    assert (await views.trade_analytics.load(0, CostBasis.FIFO, "UTC", Grouping.DAY)).closed == 0
