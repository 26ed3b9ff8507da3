"""The predictor of one process: told of each read, it loads ahead what is likely to be read next.

Arguments stay in this process. What is shared are counts of contexts, added to Redis every ten seconds and asked for
once a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from threading import get_ident
from typing import Any

from cachebus.cache.foresight.prediction.affected import Affected, Scoped
from cachebus.cache.foresight.prediction.ahead import AheadLoads
from cachebus.cache.foresight.prediction.counts import SharedCounts
from cachebus.cache.foresight.prediction.elsewhere import look_elsewhere, mark_used
from cachebus.cache.foresight.prediction.expectation import Ahead, Expectation
from cachebus.cache.foresight.prediction.followed import Followed, Seen
from cachebus.cache.foresight.prediction.follows import add_follows, days_of, read_follows
from cachebus.cache.foresight.prediction.forecaster import Forecaster
from cachebus.cache.foresight.prediction.outcomes import FoundElsewhere
from cachebus.cache.settings import CacheSettings
from cachebus.cache.view import View
from cachebus.clock import now_s
from cachebus.errors import ServerError
from cachebus.freshness.rule import Freshness
from cachebus.redis.client import Client

log = logging.getLogger("cachebus")

TICK_S = 1.0
FLUSH_TICKS = 10
LEARN_TICKS = 60
ASKED_AT_ONCE = 200
MOST_NOTED = 1_000
"""Reads of other threads, and invalidated scopes, kept until the end of a loop tick; of a storm, the newest."""


class Predictor:
    """Watches the views of one process that have an identity, and loads ahead those that say `predict=True`."""

    def __init__(
        self, settings: CacheSettings, freshness: Freshness, client: Client | None, views: Mapping[str, View[Any, Any]]
    ) -> None:
        self._freshness = freshness
        self._client = client
        self._views = views
        self.forecaster = Forecaster(
            live=settings.predict == "live",
            waste=settings.predict_waste,
            price=settings.predict_price,
            is_valid=self._is_valid,
            mark=lambda: freshness.seen,
        )
        self._ahead = AheadLoads(self.forecaster.outcomes, client)
        self.forecaster.outcomes.used = self._used
        self._counts = SharedCounts(self.forecaster)
        self._affected = Affected(self.forecaster.people)
        self._followed: list[Followed] = []
        self._known: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._from_threads: deque[tuple[Followed, tuple[Any, ...], dict[str, Any], Seen]] = deque(maxlen=MOST_NOTED)
        self._invalidated: deque[str] = deque(maxlen=MOST_NOTED)
        self._in_redis: dict[str, None] = {}
        """Entries that were found in Redis since the last tick."""
        self._clock = 0
        self._waited_for = 0
        self._has_read = True
        """Whether anything was read since it last learnt: who reads nothing asks nothing."""
        self._is_closed = False
        freshness.watchers = (*freshness.watchers, self._hear)
        self.follow()

    def follow(self) -> None:
        """Watch views that have been declared since."""
        for name, view in list(self._views.items()):
            if name in self._known:
                continue
            self._known.add(name)
            if view.identity is None or view.is_method:
                continue
            known = self.forecaster.follow(name, view.policy.ttl_ms / 1000, view.stats, predicts=view.predicts)
            followed = Followed(view, known, self._note)
            self._followed.append(followed)
            view.watchers = (*view.watchers, followed)
            if view.predicts:
                tags = tuple(view.tag_templates)
                self._affected.add(Scoped(known.number, view.identity, view.name, tags, followed.scopes_of))

    async def run(self) -> None:
        """Count what did not come, and share what is counted, until cancelled."""
        ticks, next_learning = 0, 0
        try:
            while True:
                if ticks >= next_learning and self._has_read and await self.learn():
                    next_learning, self._has_read = ticks + LEARN_TICKS, False
                await asyncio.sleep(TICK_S)
                ticks += 1
                self.look()
                await self.settle()
                await self._ahead.send_reasons()
                if ticks % FLUSH_TICKS == 0:
                    await self.flush()
        finally:
            await self.flush()

    def look(self) -> None:
        """Do what is due each second."""
        self.follow()
        waited_for = sum(view.stats.loads for view in self._views.values())
        self.forecaster.budget.earn(waited_for - self._waited_for)
        self._waited_for = waited_for
        for view, share in self.forecaster.outcomes.suspended:
            log.warning("%s: %.0f %% of the last 200 loads ahead were used; none for an hour", view.name, share * 100)
        self.forecaster.outcomes.suspended.clear()

    async def settle(self) -> None:
        """Find out what became of expectations whose time is over, and tell others which of their loads were of use."""
        client, in_redis, self._in_redis = self._client, self._in_redis, {}
        if client is not None and in_redis:
            try:
                await mark_used(client, in_redis)
            except ServerError as away:
                log.debug("prediction: uses not noted: %s", away)
        now = now_s()
        late = self.forecaster.expire(now)
        for first in range(0, len(late), ASKED_AT_ONCE):
            part = late[first : first + ASKED_AT_ONCE]
            answers = await asyncio.gather(*[self._elsewhere(each) for each in part])
            for expectation, answer in zip(part, answers, strict=True):
                self.forecaster.outcomes.settled(expectation, answer, now)

    async def _elsewhere(self, expectation: Expectation) -> FoundElsewhere:
        if self._client is None:
            return FoundElsewhere.MISSED
        entry = self._followed[expectation.view.number].entry_of(expectation.call)
        try:
            ours = expectation.ahead is Ahead.LOADED
            return await look_elsewhere(self._client, entry, expectation.said[0].at, ours=ours)
        except ServerError as away:
            log.debug("prediction: nobody can say what became of an expectation: %s", away)
            return FoundElsewhere.READY

    async def flush(self) -> None:
        """Add to Redis what was counted since the last time. Nothing where nothing was."""
        client, new = self._client, self._counts.unsent()
        if client is None or not new or not client.store.up:
            return
        day = days_of(client)[0]
        self._counts.sent(day, new)  # what is under way when the connection breaks is not sent again
        try:
            await add_follows(client, day, new)
        except ServerError as away:
            log.debug("prediction: counts not sent: %s", away)

    async def learn(self) -> bool:
        """Learn what other processes have counted since the last time; returns whether that was possible."""
        client = self._client
        if client is None:
            return True
        if not client.store.up:
            return False
        today, yesterday = days_of(client)
        try:
            for day in (yesterday, today):
                self._counts.learn(day, await read_follows(client, day))
        except ServerError as away:
            log.debug("prediction: counts not read: %s", away)
            return False
        self._counts.end((today, yesterday))
        return True

    async def close(self) -> None:
        """Watch no more, and give up the loads under way."""
        self._is_closed = True
        for followed in self._followed:
            followed.view.watchers = tuple(each for each in followed.view.watchers if each is not followed)
        await self._ahead.close()

    # -- reads ------------------------------------------------------------------------------------------------------

    def _note(self, followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen) -> None:
        """Take note of one read. Any thread."""
        if get_ident() != self._thread:
            self._from_threads.append((followed, args, kwargs, seen))
            if len(self._from_threads) == 1 and not self._is_closed:
                self._loop.call_soon_threadsafe(self._note_from_threads)
            return
        self._has_read = True
        ended, began, loaded, until = seen
        try:
            identity, call = followed.identify(*args, **kwargs)
            orders = self.forecaster.read(
                followed.known, identity, call, ended, began=began, loaded=loaded, until=until
            )
        except TypeError:  # an argument that cannot be told apart, such as a list
            return
        if orders:
            self._order(orders)
        if began < ended and not loaded and followed.known.may_be_ahead and len(self._in_redis) < MOST_NOTED:
            self._in_redis[followed.entry_of(call)] = None  # in Redis: perhaps another process has loaded it ahead

    def _note_from_threads(self) -> None:
        for _ in range(len(self._from_threads)):
            self._note(*self._from_threads.popleft())

    def _order(self, orders: Iterable[Expectation]) -> None:
        self._ahead.order([(self._followed[each.view.number], each) for each in orders])

    def _used(self, expectation: Expectation) -> None:
        self._ahead.note(self._followed[expectation.view.number], expectation, used=True)

    # -- invalidations ----------------------------------------------------------------------------------------------

    def _hear(self, scopes: Iterable[str], clock: int) -> None:
        """Take note of an invalidation; one of our own comes again with the journal."""
        if clock <= self._clock or self._is_closed:
            return
        self._clock = clock
        if not self._invalidated:
            self._loop.call_soon(self._look_at_invalidated)
        self._invalidated.extend(scopes)

    def _look_at_invalidated(self) -> None:
        now, scopes = now_s(), dict.fromkeys(self._invalidated)
        self._invalidated.clear()
        for scope in scopes:
            for concerned in self._affected.by(scope, now):
                person = self.forecaster.people.get(concerned.identity)
                if person is not None:
                    self._order(self.forecaster.invalidated(person, concerned.calls, now, own=concerned.own))

    def _is_valid(self, expectation: Expectation) -> bool:
        scopes = self._followed[expectation.view.number].scopes_of(expectation.call)
        return self._freshness.latest(scopes) <= expectation.mark
