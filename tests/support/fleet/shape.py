"""How wide the fleet is, and what its processes say to one another."""

from __future__ import annotations

import msgspec

WORKERS = 4
SHARDS = 4
APPLICATIONS = ("shop", "desk", "bank", "mail")
KEYS = [f"{n}-{name}" for name in APPLICATIONS for n in range(4)]
"""What is changed. Each application has four of its own, one in each shard."""
CHANNEL = "changes"
READY, QUIET = "application is connected", "application changes nothing more"


class Changed(msgspec.Struct, frozen=True):
    """An event, and the data of its broadcast: the truth about *key* is version *n* now, or a later one."""

    key: str
    n: int


def mark(key: str, n: int) -> str:
    """Return the tag that one event alone invalidates."""
    return f"event:{key}:{n}"
