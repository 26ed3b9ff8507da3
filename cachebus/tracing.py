"""Where spans are made, if anybody makes them. Pure: nothing here knows OpenTelemetry.

`integrations.opentelemetry.instrument` installs a tracer. Without one nothing is made, nothing travels with events, and
a call costs one look at `installed.tracer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

TRACEPARENT_CHARACTERS = 55
"""Of version 00. Source: W3C Trace Context, 3.2."""


class Tracer(Protocol):
    """Makes a span around each thing that happens; what it enters with is the span's own `traceparent`.

    *parent* is the `traceparent` that came with the event; "" begins a trace.
    """

    def current(self) -> str:
        """Return the `traceparent` of the current span, "" where there is none."""
        ...

    def continuing(self, parent: str) -> AbstractContextManager[object]:
        """Make the span that *parent* names the current one, without making another."""
        ...

    def publishing(self, channel: str, ids: Sequence[str]) -> AbstractContextManager[str]:
        """Events are appended, by whoever is current."""
        ...

    def handling(
        self, handler: str, channel: str, ids: Sequence[str], parents: Sequence[str], attempt: int
    ) -> AbstractContextManager[str]:
        """A handler runs on an event, or on a list of them."""
        ...

    def refreshing(self, view: str, parent: str) -> AbstractContextManager[str]:
        """A worker loads an entry that a handler asked for."""
        ...

    def delivering(self, topic: str, parent: str, clients: int) -> AbstractContextManager[str]:
        """A gateway passes a broadcast on to the browsers that follow its topic."""
        ...


class Installed:
    """The tracer of this process."""

    tracer: Tracer | None = None


installed = Installed()
