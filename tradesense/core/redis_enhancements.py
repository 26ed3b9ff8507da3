"""Sessions, rate limits, messages, locks, and a look at the server: for threads and event loops, with or without Redis.

What must not be lost is an event (`cachebus.Bus`); a message is for those who are there.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Self

from cachebus import ConfigurationError, ServerError, sync
from cachebus.durations import Duration
from cachebus.limits.rules import RateLimitResult
from cachebus.locks.terms import TIMEOUT, Terms
from cachebus.pubsub.pubsub import Message
from cachebus.redis.connection import Argument, Connection
from cachebus.sessions.session import UserId
from cachebus.sync.crossing import CrossingLock
from cachebus.sync.pubsub import Listener
from tradesense.core.cache import facade

CALL_S = 5.0
"""How long one command of a person may take."""


# -- sessions ---------------------------------------------------------------------------------------------------------


class StrategySessions(sync.SessionStore):
    """Sessions that end after 30 minutes without use, or after 12 hours. Every call is one round trip and blocks.

    Every method raises SessionsUnavailable when the server cannot be asked: an outage logs nobody out.
    """

    def create_session(
        self,
        user_id: UserId,
        data: Mapping[str, Any] | None = None,
        *,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> str:
        """Begin a session and return its id. `ip` and `user_agent` in *data* are also where the user is known to be."""
        given = dict(data or {})
        ip, user_agent = (
            word if isinstance(word, str) else None for word in (given.get("ip"), given.get("user_agent"))
        )
        return self.create(user_id, given, ip=ip, user_agent=user_agent, idle=idle, absolute=absolute)

    get_session = sync.SessionStore.get
    update_session = sync.SessionStore.update
    rotate_session = sync.SessionStore.rotate
    invalidate_session = sync.SessionStore.invalidate
    invalidate_user_sessions = sync.SessionStore.invalidate_user
    list_user_sessions = sync.SessionStore.list_user


session_store = StrategySessions(facade)


# -- rate limits ------------------------------------------------------------------------------------------------------


class StrategyLimits(sync.RateLimiter):
    """Limits that all processes share. A check is one round trip, none while a refusal holds."""

    def check_rate_limit(
        self,
        key: str,
        limit: int,
        window: Duration,
        strategy: str = "sliding_window",
        *,
        cost: int = 1,
        on_outage: str = "local",
    ) -> RateLimitResult:
        """Count a request if it fits, and return the decision, which unpacks to `(allowed, remaining)`.

        *strategy* is `sliding_window`, `token_bucket` or `fixed_window`. While the server is unavailable, *on_outage*
        decides within 50 ms: `local`, `open` or `closed`. Raises: ConfigurationError (a ValueError).
        """
        return self.check(key, limit=limit, window=window, strategy=strategy, cost=cost, on_outage=on_outage)

    reset_limit = sync.RateLimiter.reset


rate_limiter = StrategyLimits(facade)


# -- messages ---------------------------------------------------------------------------------------------------------


class Channels:
    """Publish and subscribe."""

    def __init__(self) -> None:
        self._pubsub = sync.PubSub(facade)

    def publish(self, channel: str, message: Any) -> int:
        """Send *message* to whoever listens now, and return how many connections that is. One round trip.

        Raises: ServerError when the server is unavailable; TypeError for what is not plain data.
        """
        return self._pubsub.publish(channel, message)

    def subscribe(self, channel: str, handler: Callable[[Any], object]) -> Listener:
        """Call *handler* with each message's data from now on; *channel* may be a pattern (`trade:*`).

        A plain handler runs in a thread of its own, an async one in the loop that this is called from, one message
        after the other. What it raises is logged. Subscribed again by itself after an outage; `gaps` and `dropped` of
        what is returned count where messages are missing. It ends with `unsubscribe()`.
        Raises: ServerError when the server does not confirm; ConfigurationError for an async handler without a loop.
        """
        return self._pubsub.subscribe(channel, _called_with_data(handler))


def _called_with_data(handler: Callable[[Any], object]) -> Callable[[Message], object]:
    if not inspect.iscoroutinefunction(handler):
        return lambda message: handler(message.data)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError("subscribe: an async handler needs the event loop it shall run in") from None
    return lambda message: asyncio.run_coroutine_threadsafe(handler(message.data), loop).result()


pubsub = Channels()


# -- locks ------------------------------------------------------------------------------------------------------------

_locks = sync.Locks(facade)


def distributed_lock(
    name: str,
    timeout: Duration = TIMEOUT,
    blocking_timeout: Duration | None = None,
    *,
    renew: bool = True,
    max_hold: Duration | None = None,
) -> CrossingLock:
    """Return the lock *name*, to be held with `with`, or in async code with `async with`.

    *timeout* is a lease: the lock is free that long after its holder has died or hung. While the holder lives it is
    kept; with `renew=False` it ends after *timeout* in any case. *blocking_timeout* is how long to wait for it.
    Raises: ConfigurationError (a ValueError).
    """
    return CrossingLock(_locks, Terms(name, timeout, blocking_timeout, renew, max_hold))


# -- the server -------------------------------------------------------------------------------------------------------


def get_redis_info() -> dict[str, Any]:
    """Return the server's INFO by name, numbers as numbers, with `status`: "ok", "unavailable" or "disabled".

    Never raises because the server is unavailable: a health check wants to know.
    """
    if not facade.settings.redis_enabled:
        return {"status": "disabled"}
    try:
        text = facade.run(_call("INFO"))
    except ServerError as fault:
        return {"status": "unavailable", "error": str(fault)}
    lines = (line.partition(":") for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {"status": "ok", **{name: _value(value) for name, _, value in lines}}


class RedisClient:
    """A few commands for a person who looks. Blocks; not for an application's own data. Raise: ServerError."""

    def ping(self) -> bool:
        """Return True."""
        return bool(facade.run(_call("PING")) == "PONG")

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the names that match, in order. Walks the keys (SCAN) instead of holding up the server (KEYS).

        Without Redis: the keys of the values in memory.
        """
        if not facade.settings.redis_enabled:
            reader = facade.run(facade.cache.connected())
            return sorted(key for key in reader.memory.held if fnmatchcase(key, pattern))

        async def walk() -> list[str]:
            found: set[str] = set()
            cursor = "0"
            while True:
                cursor, names = await _call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
                found.update(names)
                if cursor == "0":
                    return sorted(found)

        return facade.run(walk())

    def execute_command(self, *command: Argument) -> Any:
        """Send one command and return its reply, bytes as text where they are text."""
        return facade.run(_call(*command))

    def monitor(self) -> Monitor:
        """Return what shows every command the server runs: `with redis_client.monitor() as lines: next(lines)`.

        It connects when entered. A server that is watched is slower: for development.
        """
        return Monitor()


class Monitor:
    """The commands a server runs, one line each, as they come. Iteration blocks; it ends with the connection."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._connection: Connection | None = None

    async def _open(self) -> Connection:
        client = await facade.cache.connection()
        if client is None:
            raise ConfigurationError("REDIS_ENABLED=false: there is no server to watch")
        opened = await client.store.dedicated(client.names.ledger, lambda line: self._lines.put(_text(line)))
        await opened.call("MONITOR")
        opened.lost.add_done_callback(lambda _: self._lines.put(None))
        return opened

    def __enter__(self) -> Iterator[str]:
        self._connection = facade.run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._connection is not None:
            facade.run(self._connection.close())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._lines.get()
        if line is None:
            raise StopIteration
        return line


async def _call(*command: Argument) -> Any:
    client = await facade.cache.connection()
    if client is None:
        raise ConfigurationError("REDIS_ENABLED=false: there is no server to ask")
    key = str(command[1]) if len(command) > 1 else client.names.ledger
    return _text(await client.store.call(*command, key=key, timeout_s=CALL_S))


def _text(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_text(item) for item in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


def _value(text: str) -> Any:
    if "=" in text and not text.startswith("["):
        return {name: _value(value) for name, _, value in (part.partition("=") for part in text.split(","))}
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


redis_client = RedisClient()
