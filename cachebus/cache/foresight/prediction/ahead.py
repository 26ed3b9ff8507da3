"""Loads ahead of expected reads: two at once, at the pace of a warming, after the loads that somebody waits for.

They are loads like any other: one in the cluster, under the lease, as fresh as all. Each runs in a context of its own:
nothing of the request that was read before is part of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterable
from contextvars import Context as Variables
from functools import partial
from typing import Any, NamedTuple

from cachebus.cache.foresight.prediction.decision import AT_ONCE, MOST_ORDERED, PER_SECOND
from cachebus.cache.foresight.prediction.expectation import Expectation
from cachebus.cache.foresight.prediction.followed import Followed
from cachebus.cache.foresight.prediction.follows import LoadedAhead, note_reasons
from cachebus.cache.foresight.prediction.outcomes import Outcomes
from cachebus.cache.upkeep.warming import Pace
from cachebus.clock import now_s
from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.waiting import end

log = logging.getLogger("cachebus")

POSTPONED_S = 2.0
"""How long a load ahead waits while readers of its view wait for loads of their own."""
LOOK_AGAIN_S = 0.05


class _Order(NamedTuple):
    followed: Followed
    expectation: Expectation
    at: float


class AheadLoads:
    """The loads ahead of one process."""

    def __init__(self, outcomes: Outcomes, client: Client | None) -> None:
        self._outcomes = outcomes
        self._client = client
        self._orders: deque[_Order] = deque()
        self._pace = Pace(AT_ONCE, PER_SECOND)
        self._under_way: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._reasons: list[tuple[str, LoadedAhead, int]] = []
        self._is_closed = False

    def order(self, orders: Iterable[tuple[Followed, Expectation]]) -> None:
        """Load what is expected, unless it is read before that."""
        now = now_s()
        for followed, expectation in orders:
            if len(self._orders) >= MOST_ORDERED:
                self._outcomes.refused(expectation)
            else:
                self._orders.append(_Order(followed, expectation, now))
        self._begin()

    async def close(self) -> None:
        """Give up what is under way."""
        self._is_closed = True
        if self._again is not None:
            self._again.cancel()
        await end(self._under_way)

    # -- one after the other ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin what may begin; look again when more may."""
        if self._is_closed:
            return
        now, postponed = now_s(), list[_Order]()
        while self._orders and len(self._under_way) < self._pace.now and now >= self._pace.next_at:
            order = self._orders.popleft()
            if not self._is_up() or now - order.at >= POSTPONED_S:
                self._outcomes.refused(order.expectation)
            elif order.followed.view.loading > order.followed.loading:  # readers of this view wait: they come first
                postponed.append(order)
            elif self._outcomes.begun(order.expectation, now):
                self._start(order)
        self._orders.extendleft(reversed(postponed))
        if self._orders and self._again is None:
            wait_s = max(LOOK_AGAIN_S, self._pace.next_at - now)
            self._again = asyncio.get_running_loop().call_later(wait_s, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._begin()

    def _is_up(self) -> bool:
        return self._client is None or (self._client.store.up and self._client.entries.up)

    def _start(self, order: _Order) -> None:
        order.followed.loading += 1
        load = self._load(order.followed, order.expectation)
        task = asyncio.get_running_loop().create_task(load, name="cachebus ahead", context=Variables())
        self._under_way.add(task)
        task.add_done_callback(partial(self._ended, order.followed))

    def _ended(self, followed: Followed, task: asyncio.Task[None]) -> None:
        followed.loading -= 1
        self._under_way.discard(task)
        self._begin()

    async def _load(self, followed: Followed, expectation: Expectation) -> None:
        """Load one call, unless it is there or somebody else loads it."""
        view, arguments, ran, began = followed.view, followed.arguments(expectation.call), False, now_s()

        async def load() -> Any:
            nonlocal ran
            ran = True
            return await view.run(**arguments)

        try:
            await view.warm_with(partial(view.observed, load, (), arguments), (), arguments)
        except Exception as failed:  # noqa: BLE001 - of the application's function; whoever reads it will see it too
            log.debug("%s: loading ahead failed: %r", view.name, type(failed))
            self._outcomes.failed(expectation, now_s())
            return
        now = now_s()
        self._outcomes.loaded(expectation, now, until=followed.ready_until(expectation.call), loaded=ran)
        if ran:
            self._pace.loaded(now - began, now, random.random())  # noqa: S311 - jitter, not a secret
            self.note(followed, expectation, used=expectation.read_at is not None)

    # -- why --------------------------------------------------------------------------------------------------------

    def note(self, followed: Followed, expectation: Expectation, *, used: bool) -> None:
        """Have it lie beside the entry why it was loaded, and whether that was of use."""
        because = expectation.because
        if self._client is None or because is None:
            return
        cell = because.broad if because.broad is not None and because.cell.chance < 0 else because.cell
        reason = LoadedAhead(cell.context.name, because.chance, round(cell.n), followed.known.horizon_s, used)
        life_ms = followed.view.policy.ttl_ms + followed.view.policy.grace_ms
        self._reasons.append((followed.entry_of(expectation.call), reason, life_ms))

    async def send_reasons(self) -> None:
        """Lay down what was noted. Nothing where nothing was."""
        reasons, self._reasons = self._reasons, []
        if self._client is not None and reasons:
            try:
                await note_reasons(self._client, reasons)
            except ServerError as away:
                log.debug("prediction: reasons not noted: %s", away)
