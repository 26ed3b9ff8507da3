"""Where atomic values are kept: on the server, or in a process that has none."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cachebus.clock import now_s
from cachebus.redis.client import Client
from cachebus.redis.replies import Reply

TIMEOUT_S = 1.0
"""Longer than a read may take, which can do without Redis: of a late call nobody knows the outcome."""
SWEEP_AT = 1_000
LEAST, MOST = -(2**63), 2**63 - 1


class ValueBackend(Protocol):
    """Where atomic values are kept, as JSON. Each verb is one step; errors are the server's."""

    async def add(self, name: str, value: bytes, ttl_ms: int) -> bool:
        """Store a value where there is none."""
        ...

    async def get(self, name: str) -> bytes | None:
        """Return a value."""
        ...

    async def count(self, name: str, amount: int, ttl_ms: int) -> int | None:
        """Add to a number and return the sum; None, and nothing done, where it is no whole number of 64 bits."""
        ...

    async def touch(self, name: str, ttl_ms: int) -> bool:
        """Let a value live that long from now; False where there is none."""
        ...

    async def ttl_ms(self, name: str) -> int | None:
        """Return for how long a value lives on; None where there is none."""
        ...

    async def delete(self, name: str) -> bool:
        """Delete a value; False where there was none."""
        ...


class ServerValues:
    """Atomic values in Redis, on the server that does not evict: each verb is one command or script."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(self, name: str, value: bytes, ttl_ms: int) -> bool:
        """See `ValueBackend.add`."""
        return await self._call("SET", name, value, "NX", "PX", ttl_ms) is not None

    async def get(self, name: str) -> bytes | None:
        """See `ValueBackend.get`."""
        value: bytes | None = await self._call("GET", name)
        return value

    async def count(self, name: str, amount: int, ttl_ms: int) -> int | None:
        """See `ValueBackend.count`."""
        key = self._client.names.spread("value", name)
        total = await self._client.store.run("cache/atomic/count", (key,), (str(amount), ttl_ms), timeout_s=TIMEOUT_S)
        return None if total == 0 else int(total)

    async def touch(self, name: str, ttl_ms: int) -> bool:
        """See `ValueBackend.touch`."""
        return bool(await self._call("PEXPIRE", name, ttl_ms))

    async def ttl_ms(self, name: str) -> int | None:
        """See `ValueBackend.ttl_ms`."""
        left: int = await self._call("PTTL", name)
        return left if left >= 0 else None

    async def delete(self, name: str) -> bool:
        """See `ValueBackend.delete`."""
        return bool(await self._call("UNLINK", name))

    async def _call(self, command: str, name: str, *args: str | int | bytes) -> Reply:
        key = self._client.names.spread("value", name)
        return await self._client.store.call(command, key, *args, key=key, timeout_s=TIMEOUT_S)


class _Value(NamedTuple):
    json: bytes
    ends_s: float


class LocalValues:
    """Atomic values inside one process that has no server: the same calls, the same answers."""

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}
        self._sweep_at = SWEEP_AT

    async def add(self, name: str, value: bytes, ttl_ms: int) -> bool:
        """See `ValueBackend.add`."""
        if self._held(name) is not None:
            return False
        self._put(name, value, now_s() + ttl_ms / 1000)
        return True

    async def get(self, name: str) -> bytes | None:
        """See `ValueBackend.get`."""
        held = self._held(name)
        return None if held is None else held.json

    async def count(self, name: str, amount: int, ttl_ms: int) -> int | None:
        """See `ValueBackend.count`."""
        held = self._held(name) or _Value(b"0", now_s() + ttl_ms / 1000)
        try:
            total = int(held.json) + amount
        except ValueError:
            return None
        if not LEAST <= total <= MOST:
            return None
        self._put(name, b"%d" % total, held.ends_s)
        return total

    async def touch(self, name: str, ttl_ms: int) -> bool:
        """See `ValueBackend.touch`."""
        held = self._held(name)
        if held is None:
            return False
        self._put(name, held.json, now_s() + ttl_ms / 1000)
        return True

    async def ttl_ms(self, name: str) -> int | None:
        """See `ValueBackend.ttl_ms`."""
        held = self._held(name)
        return None if held is None else int((held.ends_s - now_s()) * 1000)

    async def delete(self, name: str) -> bool:
        """See `ValueBackend.delete`."""
        held = self._held(name)
        self._values.pop(name, None)
        return held is not None

    def _held(self, name: str) -> _Value | None:
        held = self._values.get(name)
        return held if held is not None and held.ends_s > now_s() else None

    def _put(self, name: str, value: bytes, ends_s: float) -> None:
        self._values[name] = _Value(value, ends_s)
        if len(self._values) >= self._sweep_at:
            now = now_s()
            self._values = {each: value for each, value in self._values.items() if value.ends_s > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._values))
