"""What `SessionStore` asks of the place where sessions are kept: a server, or the memory of this process.

*address* is where a user's sessions are, *digest* names one of them, *record* is its text as `decode_session` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

WhenFull = Literal["evict_oldest", "refuse"]


class NewSession(NamedTuple):
    """A session that begins: its digest, the JSON of its user, address and agent, its lines of data, its timeouts."""

    digest: str
    user: bytes
    ip: bytes
    agent: bytes
    lines: Sequence[bytes]
    idle_us: int
    absolute_us: int


class SessionChange(NamedTuple):
    """What becomes of a session. *pairs*: name, and its line or b"" to remove it."""

    pairs: Sequence[bytes]
    most_bytes: int
    version: int = 0
    """The version it must have; 0: any."""
    idle_us: int = 0
    """Its timeouts from now on; 0: as they are."""
    absolute_us: int = 0


class FoundSession(NamedTuple):
    """A session as it is kept; `noted_us` is the server's time if its activity was noted just now."""

    digest: str
    record: bytes
    noted_us: int | None = None


class SessionBackend(Protocol):
    """Where sessions are kept. Each verb is atomic, and one round trip. Raises: ServerError."""

    async def create(self, address: str, new: NewSession, most: int, when_full: WhenFull) -> list[str] | None:
        """Begin a session; return the digests of those that ended for it, None where it was refused. *most* 0: any."""
        ...

    async def read(self, address: str, digest: str, touch_us: int, ip: bytes, agent: bytes) -> FoundSession | None:
        """Return a session; note activity, and from where, at most once in *touch_us* or a tenth of its idle time."""
        ...

    async def update(
        self, address: str, digest: str, change: SessionChange
    ) -> FoundSession | Literal["conflict", "too large"] | None:
        """Set and remove fields, and timeouts."""
        ...

    async def rotate(self, address: str, digest: str, new_digest: str, overlap_us: int) -> bool | None:
        """Give a session another id; False where that was done a moment ago, None where there is none."""
        ...

    async def end(self, address: str, digest: str) -> bool:
        """End a session, whichever of its ids is given."""
        ...

    async def end_all(self, address: str, kept: str) -> int:
        """End every session of a user but that of the digest *kept*, '' none; return how many."""
        ...

    async def end_everyone(self) -> int:
        """End every session of every user; return how many users had one."""
        ...

    async def live(self, address: str) -> list[FoundSession]:
        """Return the live sessions of a user. Writes nothing."""
        ...
