"""What `Locks` asks of the place where locks are kept: a server, or the memory of this process."""

from __future__ import annotations

from typing import Protocol

from cachebus.locks.terms import Attempt, Holder


class LockBackend(Protocol):
    """Where locks are kept. *lock* is a name as `Terms` checked it; errors are the server's."""

    async def take(self, lock: str, claim: str, lease_ms: int, *, wait: bool, place: str) -> Attempt:
        """Acquire the lock, or queue for it. Safe to repeat with the same claim."""
        ...

    async def release(self, lock: str, claim: str) -> bool:
        """Release the lock, or leave its queue; False where it was not ours any more. Safe to repeat."""
        ...

    async def renew(self, lock: str, claim: str, lease_ms: int, *, timeout_s: float) -> bool:
        """Keep the lock; False where it is not ours any more."""
        ...

    async def unlock(self, lock: str, token: int) -> bool:
        """Take the lock away from the holder with this fencing number; False where it does not have it any more."""
        ...

    async def look(self, lock: str) -> Holder | None:
        """Return who has the lock."""
        ...

    async def write(self, name: str, value: bytes, token: int, ttl_ms: int) -> int:
        """Write a guarded value; return the later token that forbids it, or 0."""
        ...

    async def read(self, name: str) -> tuple[int, bytes] | None:
        """Return a guarded value and the token it was written with."""
        ...

    async def listen(self) -> bool:
        """Hear the wakes from now on; False where that begins only now, so that one was perhaps missed."""
        ...

    async def ready(self) -> None:
        """Return when the server can be asked."""
        ...

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        ...
