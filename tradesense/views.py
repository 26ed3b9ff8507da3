"""The cached views: what is kept, for how long, and what makes it old.

| view              | TTL    | tags                          | made old by                            |
|-------------------|--------|-------------------------------|----------------------------------------|
| trade_analytics   | 5 min  | user:N, user:N:trades         | a trade of the user                    |
| portfolio_summary | 2 min  | user:N, user:N:trades, market | a trade of the user, any new bar       |
| risk              | 5 min  | user:N, user:N:trades, market | a trade of the user, any new bar       |
| user_profile      | 10 min | user:N, user:N:trades         | a trade of the user (it counts them)   |
| user_settings     | 10 min | user:N, user:N:settings       | a change of the user's settings        |
| market_data       | 1 min  | market:SYMBOL                 | a new bar of the symbol                |
| price_history     | 1 min  | market:SYMBOL                 | a new bar of the symbol                |
| statistics        | 5 min  | trades                        | any trade, at most every ten seconds   |
| reference_data    | 1 h    | market                        | any new bar                            |

| tag              | carried by                                         | invalidated after an event on |
|------------------|----------------------------------------------------|-------------------------------|
| user:N           | every view of the user                             | none: for people who operate  |
| user:N:trades    | profile, portfolio, analytics, risk                | `trade:updates`               |
| trades           | statistics                                         | `trade:updates`               |
| user:N:settings  | settings                                           | `settings:updates`            |
| market:SYMBOL    | market data, price history                         | `market:bars`                 |
| market           | portfolio, risk, reference data: any symbol's bars | `market:bars`                 |

Portfolios are critical: a schedule renews them before they expire, as long as somebody reads them. Analytics and risk,
the dearest figures, are loaded ahead for users who usually look at them next (`cachebus predict` says after what).

What a user's settings shape (time zone, grouping, cost basis, risk-free rate) is part of the key: after a change of
settings the old figures are still right for the old settings, and nothing but `user_settings` becomes old.

Pages call `portfolio`, `analytics` and `risk_figures`: they look the user's settings up, which are cached too, and then
read the view for them; `with cache.reading(fresh_after=clock):` around such a call holds for both reads.
"""

from __future__ import annotations

from cachebus import Cache, Policy
from tradesense import queries
from tradesense.never import NEVER_CACHED
from tradesense.results import (
    CostBasis,
    Grouping,
    MarketData,
    PortfolioSummary,
    PriceHistory,
    Profile,
    ReferenceData,
    Risk,
    Statistics,
    TradeAnalytics,
    UserSettings,
)

cache = Cache.from_env(never=NEVER_CACHED)

OF_USER = ["user:{user_id}", "user:{user_id}:trades"]
AHEAD = Policy(predict=True)


@cache.view("settings:{user_id}", ttl="10m", tags=["user:{user_id}", "user:{user_id}:settings"])
async def user_settings(user_id: int) -> UserSettings:
    """How the user wants figures computed and grouped."""
    return await queries.user_settings(user_id)


@cache.view("profile:{user_id}", ttl="10m", tags=OF_USER)
async def user_profile(user_id: int) -> Profile:
    """What others may see of the user."""
    return await queries.user_profile(user_id)


@cache.view("portfolio:{user_id}:summary:{cost_basis}", ttl="2m", stale="10m", critical=True, tags=[*OF_USER, "market"])
async def portfolio_summary(user_id: int, cost_basis: CostBasis) -> PortfolioSummary:
    """What the user holds, at the last closes."""
    return await queries.portfolio_summary(user_id, cost_basis)


@cache.view(
    "analytics:{user_id}:trades:{cost_basis}:{time_zone}:{grouping}",
    ttl="5m",
    stale="10m",
    tags=OF_USER,
    policy=AHEAD,
)
async def trade_analytics(user_id: int, cost_basis: CostBasis, time_zone: str, grouping: Grouping) -> TradeAnalytics:
    """How the user's closed trades went, in periods of the user's own calendar."""
    return await queries.trade_analytics(user_id, cost_basis, time_zone, grouping)


@cache.view("analytics:{user_id}:risk:{risk_free_rate}", ttl="5m", stale="10m", tags=[*OF_USER, "market"], policy=AHEAD)
async def risk(user_id: int, risk_free_rate: float) -> Risk:
    """Equity curve, drawdown, volatility and Sharpe ratio of the user's portfolio."""
    return await queries.risk_of(user_id, risk_free_rate)


@cache.view("market:{symbol}:daily", ttl="1m", stale="5m", tags=["market:{symbol}"])
async def market_data(symbol: str) -> MarketData:
    """The last bars of a symbol, with technical indicators."""
    return await queries.market_data(symbol)


@cache.view("market:{symbol}:history", ttl="1m", stale="5m", tags=["market:{symbol}"])
async def price_history(symbol: str) -> PriceHistory:
    """What a chart of a symbol shows: two years of bars, with technical indicators at each."""
    return await queries.price_history(symbol)


@cache.view("statistics:all", ttl="5m", stale="10m", tags=["trades"], policy=Policy(settle="10s"))
async def statistics() -> Statistics:
    """Sums over all users' trades: every trade changes them, so they settle for ten seconds."""
    return await queries.statistics()


@cache.view("reference:instruments", ttl="1h", stale="6h", tags=["market"])
async def reference_data() -> ReferenceData:
    """Everything that can be traded."""
    return await queries.reference_data()


async def portfolio(user_id: int) -> PortfolioSummary:
    """Return the user's portfolio as the user wants it computed."""
    wanted = await user_settings(user_id)
    return await portfolio_summary(user_id, wanted.cost_basis)


async def analytics(user_id: int) -> TradeAnalytics:
    """Return the user's trade analytics as the user wants them computed and grouped."""
    wanted = await user_settings(user_id)
    return await trade_analytics(user_id, wanted.cost_basis, wanted.time_zone, wanted.grouping)


async def risk_figures(user_id: int) -> Risk:
    """Return the user's risk figures with the user's own risk-free rate."""
    wanted = await user_settings(user_id)
    return await risk(user_id, wanted.risk_free_rate)
