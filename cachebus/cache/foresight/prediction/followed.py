"""One view that is watched: what its reads say, and how its calls are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cachebus.cache.foresight.prediction.expectation import ForecastView
from cachebus.cache.foresight.prediction.repertoire import CallMade, Identity
from cachebus.cache.policy import JITTER
from cachebus.cache.reads.single_flight import is_within_load
from cachebus.cache.reads.watching import WatchedRead
from cachebus.cache.tiers.s3fifo import CachedValue
from cachebus.cache.view import View
from cachebus.clock import now_s
from cachebus.templates import stored_name

Seen = tuple[float, float, bool, float]
"""Of a read: when it had its value and when it began, whether it had to load, until when the value lies ready; seconds.

No named tuple: that would cost more than the rest of taking note of a hit.
"""
Note = Callable[["Followed", tuple[Any, ...], dict[str, Any], Seen], None]
"""Called with each read: its view and arguments."""


class Followed:
    """A view with an identity, and its `ReadWatcher`. What loads read is nobody's read."""

    def __init__(self, view: View[Any, Any], known: ForecastView, note: Note) -> None:
        """*note* is called in the thread that read."""
        self.view = view
        self.known = known
        self.loading = 0
        """Loads ahead of it under way."""
        self._names = tuple(view.binding.signature.parameters)
        arguments = "".join(f"{name}, " for name in self._names)
        self.identify: Callable[..., tuple[Identity, CallMade]] = view.binding.compiled(
            f"(({view.identity!r}, {view.identity}), ({known.number}, {arguments}))"
        )
        """Whose call it is, and the call, from its arguments."""
        policy = view.policy
        self._late_s = (policy.stale_ms - policy.grace_ms) / 1000
        self._least_s = (policy.ttl_ms * (1 - JITTER) + policy.stale_ms) / 1000
        self._note = note

    # -- as a watcher -----------------------------------------------------------------------------------------------

    def hit(self, _view: Any, held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of a hit."""
        if not is_within_load():
            now = now_s()
            self._note(self, args, kwargs, (now, now, False, held.keep_until + self._late_s))

    def read(self, seen: WatchedRead, began: float, *, loaded: bool) -> None:
        """Take note of a read that memory did not answer at once."""
        if not is_within_load():
            until = self._ready_until(seen.call.key, loaded=loaded)
            self._note(self, seen.args, seen.kwargs, (now_s(), began, loaded, until))

    # -- of one call ------------------------------------------------------------------------------------------------

    def arguments(self, call: CallMade) -> dict[str, Any]:
        """Return the arguments of a call by name."""
        return dict(zip(self._names, call[1:], strict=True))

    def scopes_of(self, call: CallMade) -> tuple[str, ...]:
        """Return what makes a call old, as far as its arguments tell."""
        scopes: tuple[str, ...] = self.view.binding.named(**self.arguments(call))[2]
        return scopes

    def entry_of(self, call: CallMade) -> str:
        """Return the name of its entry in Redis."""
        key = self.view.key(**self.arguments(call))
        return self.view.host.names.entry(stored_name(key), self.view.fingerprint)

    def ready_until(self, call: CallMade) -> float:
        """Return until when nobody would have to wait for a value that has just been loaded."""
        return self._ready_until(self.view.key(**self.arguments(call)), loaded=True)

    def _ready_until(self, key: str, *, loaded: bool) -> float:
        reader = self.view.host.reader
        held = reader.memory.held.get(key) if reader is not None else None
        if held is not None:
            return held.keep_until + self._late_s
        return now_s() + self._least_s if loaded else 0.0
