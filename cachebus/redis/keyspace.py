"""The names of everything this library stores: one table, one namespace, one hash slot for what changes together."""

from __future__ import annotations

import re
from binascii import crc_hqx
from dataclasses import dataclass, field

from cachebus.errors import ConfigurationError

SLOTS = 16_384
FORMAT = "2"
"""Of ledger, journal and entries: part of their names, so that code which writes another form shares none of them."""
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True, slots=True)
class Names:
    """Key and channel names of one deployment.

    `{namespace}:…` is the bus's slot: ledger, journal, feed, events, retries, dead letters and schedules live there,
    so that one script can change them together. Entries are spread: each hashes by its own key, its lease beside it.
    """

    namespace: str = "cachebus"
    ledger: str = field(init=False)
    journal: str = field(init=False)
    feed: str = field(init=False)
    wake: str = field(init=False)
    entries: str = field(init=False)
    """What the name of every entry begins with."""

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigurationError(f"namespace: {self.namespace!r} must be 1 to 40 letters, digits, '_', '.' or '-'")
        for part in ("feed", "wake"):
            object.__setattr__(self, part, self.bus(part))
        for part in ("ledger", "journal"):
            object.__setattr__(self, part, self.bus(part, FORMAT))
        object.__setattr__(self, "entries", f"{self.namespace}:e{FORMAT}:")

    def bus(self, *parts: str) -> str:
        """Return a name in the bus's slot, such as `{cachebus}:events:0`."""
        return ":".join((f"{{{self.namespace}}}", *parts))

    def entry(self, key: str, fingerprint: str) -> str:
        """Return the name of an entry. The fingerprint keeps types of different deploys apart."""
        return f"{self.entries}{{{key}}}:{fingerprint}"

    def lease(self, entry: str) -> str:
        """Return the name of the lease of *entry*, in the entry's slot."""
        return f"{self.namespace}:l{FORMAT}:{entry.removeprefix(self.entries)}"

    def ahead(self, entry: str) -> str:
        """Return the name of why *entry* was loaded ahead, in the entry's slot."""
        return f"{self.namespace}:a{FORMAT}:{entry.removeprefix(self.entries)}"

    def spread(self, kind: str, name: str) -> str:
        """Return a name that hashes by *name* alone: locks, limits, sessions."""
        return f"{self.namespace}:{kind}:{{{name}}}"


def key_slot(key: str) -> int:
    """Return the cluster slot (0..16383) of *key*: of what stands in its first braces, if anything does."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return crc_hqx((tag if opened and closed and tag else key).encode(), 0) % SLOTS
