"""Methods that run in the loop thread, and wait. Written by `make forwarders`: do not edit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from cachebus.sync.part import SyncPart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
    from contextlib import AbstractContextManager

    from cachebus.bus.publisher import Bus as AsyncBus
    from cachebus.cache.atomic.values import AtomicValues as AsyncAtomicValues
    from cachebus.cache.cache import Cache as AsyncCache
    from cachebus.cache.hooks import Observer
    from cachebus.cache.plain_values import SetResult
    from cachebus.cache.policy import Policy, Tags
    from cachebus.cache.stats import CacheStats
    from cachebus.cache.view import View as AsyncView
    from cachebus.durations import Duration
    from cachebus.freshness.clock import Clock
    from cachebus.limits.limiter import RateLimiter as AsyncRateLimiter
    from cachebus.limits.rules import Limit, RateLimitResult
    from cachebus.locks.locks import Locks as AsyncLocks
    from cachebus.locks.terms import Holder
    from cachebus.pubsub.pubsub import PubSub as AsyncPubSub
    from cachebus.sessions.session import Session, UserId
    from cachebus.sessions.store import SessionStore as AsyncSessionStore
    from cachebus.sync.view import View

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AtomicValuesForwarders(SyncPart):
    """The methods of `cachebus.AtomicValues`, which describes them in full."""

    part: AsyncAtomicValues

    def add(self, key: str, value: Any, ttl: Duration) -> bool:
        """Store *value* under *key* for *ttl*, if there is none; returns whether it was stored."""
        return self.run(self.part.add(key, value, ttl))

    def decr(self, key: str, amount: int = 1, *, ttl: Duration) -> int:
        """Take *amount* from the number under *key* and return what is left. Otherwise as `incr`."""
        return self.run(self.part.decr(key, amount, ttl=ttl))

    def delete(self, key: str) -> bool:
        """Delete the value of *key*; False where there was none."""
        return self.run(self.part.delete(key))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of *key*, *default* where there is none."""
        return self.run(self.part.get(key, default))

    def incr(self, key: str, amount: int = 1, *, ttl: Duration) -> int:
        """Add *amount* to the number under *key* and return the sum. Where there is none it begins at 0, for *ttl*."""
        return self.run(self.part.incr(key, amount, ttl=ttl))

    def touch(self, key: str, ttl: Duration) -> bool:
        """Let the value of *key* live for *ttl* from now; False where there is none."""
        return self.run(self.part.touch(key, ttl))

    def ttl(self, key: str) -> float | None:
        """Return for how many seconds the value of *key* lives on, None where there is none."""
        return self.run(self.part.ttl(key))


class BusForwarders(SyncPart):
    """The methods of `cachebus.Bus`, which describes them in full."""

    part: AsyncBus

    def cancel(self, id: str) -> None:
        """Take back an event that is delayed, by `publish(delay=)` or `Publish(after=)`. One round trip."""
        self.run(self.part.cancel(id))

    def close(self) -> None:
        """Close the connection that `wait_replicas=` opened, if any. Idempotent."""
        self.run(self.part.close())

    def observed_by(self, observer: Callable[[str], None]) -> AbstractContextManager[None]:
        """Have *observer* called with the channel of each `publish` while this block runs, before anything is sent."""
        return self.part.observed_by(observer)

    def publish(
        self,
        channel: str,
        event: Any,
        *,
        key: str | None = None,
        id: str | None = None,
        delay: Duration | None = None,
        wait_replicas: int = 0,
        timeout: Duration = "5s",
    ) -> str:
        """Append *event* to the stream and send it to plain listeners of *channel*; returns its id."""
        return self.run(
            self.part.publish(channel, event, key=key, id=id, delay=delay, wait_replicas=wait_replicas, timeout=timeout)
        )

    def publish_many(
        self,
        channel: str,
        events: Iterable[Any],
        *,
        key: str | None = None,
        delay: Duration | None = None,
        timeout: Duration = "5s",
    ) -> list[str]:
        """Append *events* in this order, as `publish` does with each, now or after a *delay*; returns their ids."""
        return self.run(self.part.publish_many(channel, events, key=key, delay=delay, timeout=timeout))


class CacheForwarders(ABC):
    """The methods of `cachebus.Cache`, which describes them in full."""

    cache: AsyncCache

    @abstractmethod
    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something asynchronous in the loop thread and wait for it."""

    @abstractmethod
    def decorator(
        self, decorate: Callable[[Callable[P, Awaitable[R]]], AsyncView[P, R]]
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Return the decorator of a plain function."""

    def clear(self) -> Clock:
        """Make every entry of this deployment unreadable, everywhere. One round trip."""
        return self.run(self.cache.clear())

    def clock(self) -> Clock:
        """Return the newest clock this process knows. No round trip once connected."""
        return self.run(self.cache.clock())

    def delete(self, key: str) -> Clock:
        """Make *key* unreadable everywhere. One round trip."""
        return self.run(self.cache.delete(key))

    @overload
    def get(self, key: str, default: Any = None) -> Any: ...

    @overload
    def get(self, key: str, *, type: type[T]) -> T | None: ...

    @overload
    def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """Return the value stored under *key*, or *default*. At most one round trip."""
        return self.run(self.cache.get(key, default, type=type))

    @overload
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...

    @overload
    def get_many(self, keys: Iterable[str], *, type: type[T]) -> dict[str, T]: ...

    def get_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Any]:
        """Return the values there are, by key. One round trip for all. type, misses: as in `get`."""
        return self.run(self.cache.get_many(keys, type=type))

    def invalidate(
        self,
        *,
        keys: str | Iterable[str] = (),
        tags: str | Iterable[str] = (),
        prefix: str | None = None,
        pattern: str | None = None,
    ) -> Clock:
        """Make everything under these scopes unreadable in every process."""
        return self.run(self.cache.invalidate(keys=keys, tags=tags, prefix=prefix, pattern=pattern))

    def loading_only(self) -> AbstractContextManager[None]:
        """Views in this block load and never serve: for code that runs before its own invalidation takes effect."""
        return self.cache.loading_only()

    def observed_by(self, observer: Observer) -> AbstractContextManager[None]:
        """Have *observer* called while this block runs. Several may be at once, and end in any order."""
        return self.cache.observed_by(observer)

    def reading(self, *, fresh_after: str = "", strict: bool = False) -> AbstractContextManager[None]:
        """Demand the same of every read in this block: nothing older than a clock, or nothing older than the ledger."""
        return self.cache.reading(fresh_after=fresh_after, strict=strict)

    def set(
        self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = (), born: str | None = None
    ) -> SetResult:
        """Store a value under *key*; other processes see it within milliseconds. Two round trips."""
        return self.run(self.cache.set(key, value, ttl, tags=tags, born=born))

    def stats(self) -> CacheStats:
        """Return what this process has counted since it started. No round trip."""
        return self.cache.stats()

    def view(
        self,
        template: str,
        *,
        ttl: Duration | Callable[[Any], Duration] | None = None,
        tags: Tags = (),
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        identity: str | None = None,
        not_in_key: str | Iterable[str] = (),
        critical: bool = False,
        policy: Policy | None = None,
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Cache a function's results under *template*: words joined by ':', `{parameter}` for each parameter."""
        return self.decorator(
            self.cache.view(
                template,
                ttl=ttl,
                tags=tags,
                stale=stale,
                stale_if_error=stale_if_error,
                identity=identity,
                not_in_key=not_in_key,
                critical=critical,
                policy=policy,
            )
        )

    def write(self, key: str, value: Any, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> SetResult:
        """Store a value that is the newest there is, whoever reads or loads: a pushed price. Two round trips."""
        return self.run(self.cache.write(key, value, ttl, tags=tags))


class LocksForwarders(SyncPart):
    """The methods of `cachebus.Locks`, which describes them in full."""

    part: AsyncLocks

    def close(self) -> None:
        """Release what is held, and stop listening. Idempotent."""
        self.run(self.part.close())

    def guarded_get(self, name: str) -> Any:
        """Return what was last written under *name*, None if nothing was. One round trip. Raises: LockUnavailable."""
        return self.run(self.part.guarded_get(name))

    def guarded_set(self, name: str, value: Any, token: int, *, ttl: Duration = "7d") -> None:
        """Write plain data under *name*, unless a holder with a later *token* (fencing number) has written there."""
        self.run(self.part.guarded_set(name, value, token, ttl=ttl))

    def holder(self, name: str) -> Holder | None:
        """Return who holds a lock, None while it is free. One round trip; writes nothing."""
        return self.run(self.part.holder(name))

    def unlock(self, name: str, token: int) -> bool:
        """Take a lock away from the holder with this fencing number, for operators. One round trip."""
        return self.run(self.part.unlock(name, token))


class PubSubForwarders(SyncPart):
    """The methods of `cachebus.PubSub`, which describes them in full."""

    part: AsyncPubSub

    def close(self) -> None:
        """End every subscription. Idempotent."""
        self.run(self.part.close())

    def publish(self, channel: str, message: Any) -> int:
        """Send *message* to whoever listens now; returns how many connections that is (of one node, in a cluster)."""
        return self.run(self.part.publish(channel, message))


class RateLimiterForwarders(SyncPart):
    """The methods of `cachebus.RateLimiter`, which describes them in full."""

    part: AsyncRateLimiter

    def check(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Count a request of *cost* against *key* if it fits the limit."""
        return self.run(
            self.part.check(key, limit=limit, window=window, strategy=strategy, cost=cost, on_outage=on_outage)
        )

    def check_all(self, key: str, limits: Mapping[str, Limit], *, cost: int = 1) -> RateLimitResult:
        """Count a request against several limits at once: against all, or, if any refuses, against none."""
        return self.run(self.part.check_all(key, limits, cost=cost))

    def peek(
        self,
        key: str,
        *,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Return what `check` would decide, and count nothing. One round trip."""
        return self.run(
            self.part.peek(key, limit=limit, window=window, strategy=strategy, cost=cost, on_outage=on_outage)
        )

    def reset(self, key: str, *counters: str) -> bool:
        """Forget what was counted for *key*, whatever the strategy, also where a refusal is remembered."""
        return self.run(self.part.reset(key, *counters))


class SessionStoreForwarders(SyncPart):
    """The methods of `cachebus.SessionStore`, which describes them in full."""

    part: AsyncSessionStore

    def create(
        self,
        user_id: UserId,
        data: Mapping[str, Any] | None = None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> str:
        """Begin a session and return its id, which is known nowhere else. One round trip."""
        return self.run(self.part.create(user_id, data, ip=ip, user_agent=user_agent, idle=idle, absolute=absolute))

    def get(self, session_id: str | None, *, ip: str | None = None, user_agent: str | None = None) -> Session | None:
        """Return the session of this id, or None: unknown, ended, expired, or no id at all."""
        return self.run(self.part.get(session_id, ip=ip, user_agent=user_agent))

    def invalidate(self, session_id: str | None) -> bool:
        """End the session (logout), also when the id given was rotated away a moment ago. Safe to repeat."""
        return self.run(self.part.invalidate(session_id))

    def invalidate_everyone(self) -> int:
        """End every session of every user and return how many users had one. Walks all keys: for incidents."""
        return self.run(self.part.invalidate_everyone())

    def invalidate_user(self, user_id: UserId, *, except_: str | None = None) -> int:
        """End all sessions of a user, but perhaps that of the id *except_*, and return how many."""
        return self.run(self.part.invalidate_user(user_id, except_=except_))

    def list_user(self, user_id: UserId) -> list[Session]:
        """Return the live sessions of a user, the most recently used first. One round trip; writes nothing."""
        return self.run(self.part.list_user(user_id))

    def revoke(self, user_id: UserId, ref: str) -> bool:
        """End the session of a user that a list shows as *ref*. Otherwise as `invalidate`."""
        return self.run(self.part.revoke(user_id, ref))

    def rotate(self, session_id: str | None, *, overlap: Duration | None = "10s") -> str | None:
        """Give the session a new id and return it; the old one works for *overlap* more and then never again."""
        return self.run(self.part.rotate(session_id, overlap=overlap))

    def update(
        self,
        session_id: str | None,
        changes: Mapping[str, Any] | None = None,
        *,
        remove: str | Iterable[str] = (),
        version: int | None = None,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> Session | None:
        """Set the fields of *changes*, remove those of *remove*, and return the session. One round trip."""
        return self.run(
            self.part.update(session_id, changes, remove=remove, version=version, idle=idle, absolute=absolute)
        )
