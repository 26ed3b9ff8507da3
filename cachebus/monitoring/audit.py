"""Who did what, on the live page or by `cachebus unlock`: a bounded stream in Redis, read newest first."""

from __future__ import annotations

from typing import Any

import msgspec

from cachebus.redis.client import Client
from cachebus.redis.replies import named

LENGTH = 1000
LASTS_S = 90 * 86_400
"""The log ends this long after the last action."""


class AuditRecord(msgspec.Struct, frozen=True):
    """One action. It is written before the action is done, so that nothing is done without a record."""

    at_ms: int
    who: str
    action: str
    target: str


class Audit:
    """The log of a deployment."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = client.names.bus("audit")

    async def note(self, who: str, action: str, target: str) -> None:
        """Add a record. One shared round trip. Raises: ServerError; the action must not be done then."""
        record: Any = ("who", who, "action", action, "target", target[:2000])
        await self._client.store.call("XADD", self._name, "MAXLEN", "~", LENGTH, "*", *record)
        await self._client.store.call("EXPIRE", self._name, LASTS_S)

    async def newest(self, count: int = 50) -> list[AuditRecord]:
        """Return the last *count* records, newest first. One round trip. Raises: ServerError."""
        lines = await self._client.store.call("XREVRANGE", self._name, "+", "-", "COUNT", count)
        return [_record(identity, fields) for identity, fields in lines]


def _record(identity: bytes, flat: list[bytes]) -> AuditRecord:
    fields = {name: value.decode(errors="replace") for name, value in named(flat).items()}
    return AuditRecord(int(identity.partition(b"-")[0]), fields["who"], fields["action"], fields["target"])
