"""An order is placed: the customer's total becomes old, the customer hears of it. Some orders misbehave, for tests."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import msgspec

from cachebus.bus.effects import Broadcast, Effect, Effects, Invalidate, Refresh
from cachebus.bus.handlers import on
from shop.views import total


class Order(msgspec.Struct, frozen=True):
    """`orders`: a customer has ordered."""

    customer: int
    number: int = 0
    action: Literal["placed", "refused"] = "placed"


@on("orders", Order, retries=1, backoff="50ms")
def order_placed(order: Order) -> Effects:
    """The next look at the total sees it."""
    if order.action == "refused":
        raise ValueError(f"order {order.number} cannot be taken")
    yield Invalidate(tags=[f"customer:{order.customer}"])
    yield Broadcast(f"user:{order.customer}", f"order.{order.action}", {"number": order.number})
    yield Refresh(total, order.customer)


@on("slow-orders", Order, timeout="60s")
async def order_weighed(order: Order) -> AsyncIterator[Effect]:
    """Takes as long as its number says, in milliseconds; a file says that it has begun."""
    Path(os.environ["SHOP_FOLDER"], f"weighing-{order.number}").touch()  # noqa: ASYNC240 - an empty file, on a local disk
    await asyncio.sleep(order.number / 1000)
    yield Broadcast(f"user:{order.customer}", "order.weighed", {"number": order.number})


@on("stuck-orders", Order)
def order_stuck(order: Order) -> Effects:
    """Holds the whole process up, as no handler should; a file says that it has begun."""
    Path(os.environ["SHOP_FOLDER"], "stuck").touch()
    time.sleep(order.number)
    return ()
