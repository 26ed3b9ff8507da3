"""What a new or corrected bar does: the symbol's data and everything valued at closes become old; watchers hear of it.

Delivered: at least once, in order for each symbol, all effects of an event together or none.
Twice is safe: invalidating again makes nothing older than it is, and a second broadcast is a hint to read again.
"""

from __future__ import annotations

from cachebus import Broadcast, Effects, Invalidate, on
from tradesense.events import MarketEvent


@on("market:bars", MarketEvent)
def bar_arrived(event: MarketEvent) -> Effects:
    """Whoever looks next sees the close, in the chart and in every portfolio."""
    yield Invalidate(tags=[f"market:{event.symbol}", "market"])
    yield Broadcast(f"market:{event.symbol}", "market.bar", {"day": event.day})
