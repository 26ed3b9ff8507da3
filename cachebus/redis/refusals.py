"""What a server refuses of what reads need, so that a cache that works for nobody does not look healthy."""

from __future__ import annotations

import logging

from cachebus.errors import ServerError, Unavailable

log = logging.getLogger("cachebus")


class Refusals:
    """Counts the reads that a server refused. One WARNING when that begins or its reason changes, one when it ends.

    An outage is not a refusal: it is logged, and shown, as such.
    """

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""
        """Why reads are refused at present: the server's words, '' while they are served."""

    def note(self, error: ServerError) -> None:
        """Count a read that failed with *error*."""
        if isinstance(error, Unavailable):
            return
        self.count += 1
        if _kind(str(error)) != _kind(self.reason):
            self.reason = str(error)
            log.warning("redis refuses reads, everything is loaded: %s", error)

    def clear(self) -> None:
        """Note that a read was served."""
        if self.reason:
            self.reason = ""
            log.warning("redis serves reads again")


def _kind(message: str) -> str:
    return message.partition(" ")[0]
