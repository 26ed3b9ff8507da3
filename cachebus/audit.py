"""Who did what on the live page: a bounded stream in Redis, newest first for whoever reads it."""

from __future__ import annotations

from typing import Any

import msgspec

from cachebus.link import Link

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

    def __init__(self, link: Link) -> None:
        self._link = link
        self._name = link.names.bus("audit")

    async def note(self, who: str, action: str, target: str) -> None:
        """Add a record. One shared round trip. Raises: ServerError; the action must not be done then."""
        record: Any = ("who", who, "action", action, "target", target[:2000])
        await self._link.store.call("XADD", self._name, "MAXLEN", "~", LENGTH, "*", *record)
        await self._link.store.call("EXPIRE", self._name, LASTS_S)

    async def newest(self, count: int = 50) -> list[AuditRecord]:
        """Return the last *count* records, newest first. One round trip. Raises: ServerError."""
        lines = await self._link.store.call("XREVRANGE", self._name, "+", "-", "COUNT", count)
        return [_record(identity, fields) for identity, fields in lines]


def _record(identity: bytes, flat: list[bytes]) -> AuditRecord:
    fields = {name.decode(): value.decode(errors="replace") for name, value in zip(flat[::2], flat[1::2], strict=True)}
    return AuditRecord(int(identity.partition(b"-")[0]), fields["who"], fields["action"], fields["target"])
