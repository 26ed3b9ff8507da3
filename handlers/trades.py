"""What a trade does: the user's figures become old, the user's browsers hear of it, portfolios in use are computed.

Delivered: at least once, in order for each user, all effects of an event together or none.
Twice is safe: invalidating again makes nothing older than it is, a second broadcast is a hint to read again, and equal
refreshes that wait are one.
"""

from __future__ import annotations

from cachebus import Broadcast, Effects, Invalidate, Refresh, on
from tradesense.events import TradeEvent
from tradesense.results import CostBasis
from tradesense.views import portfolio_summary


@on("trade:updates", TradeEvent)
def trade_changed(event: TradeEvent) -> Effects:
    """Whoever looks next sees the trade, in every figure that it is part of."""
    user_id = event.user_id
    yield Invalidate(tags=[f"user:{user_id}:trades", "trades"])
    yield Broadcast(f"user:{user_id}", f"trade.{event.action}", {"trade_id": event.trade_id, "symbol": event.symbol})
    for cost_basis in CostBasis:  # which one the user wants is a setting: looking it up would hold up the stream
        yield Refresh(portfolio_summary, user_id, cost_basis, worth=True)
