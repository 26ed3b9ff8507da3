"""How far back the ledger remembers invalidations."""

from __future__ import annotations

import logging

from cachebus.freshness.clock import Born

log = logging.getLogger("cachebus")


class Recall:
    """What is known of it in this process, and how often entries were of no use only because they are older."""

    def __init__(self) -> None:
        self.known_since = 0
        """Clock from which on the ledger remembers every invalidation; 0 where that is not known yet."""
        self.outlived = 0

    def excludes(self, born: Born, seen: int) -> bool:
        """Return whether the ledger no longer knows what was invalidated since then; the first time says so.

        *seen*: the newest clock this process knows.
        """
        if born.number >= self.known_since:
            return False
        if not self.outlived:
            log.warning(
                "the ledger remembers the invalidations of the last %.0f s only: entries older than that are loaded"
                " again; set CACHE_LEDGER_SCOPES higher (cachebus_cache_outlived_total counts them)",
                (seen - self.known_since) / 1e6,
            )
        self.outlived += 1
        return True
