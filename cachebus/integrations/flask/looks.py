"""What code looks at of the request it answers: headers, cookies, the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import request
from flask.globals import request_ctx
from werkzeug.datastructures import EnvironHeaders

SESSION = "session"
EVERY = "every header"
"""All headers: code went through them."""
_PARSED = ("cookies", "authorization")
"""What a request keeps of its headers once it has read them."""


class _WatchedHeaders(EnvironHeaders):
    """The headers of a request; names that are read go to *seen*, in lower case."""

    def __init__(self, environ: dict[str, Any], seen: set[str]) -> None:
        super().__init__(environ)
        self._seen = seen

    def _get_key(self, key: str) -> str:
        self._seen.add(str(key).lower())
        return super()._get_key(key)

    def getlist(self, key: str, *options: Any, **named: Any) -> Any:
        self._seen.add(key.lower())
        return EnvironHeaders(self.environ).getlist(key, *options, **named)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._seen.add(EVERY)
        return super().__iter__()


@contextmanager
def watched() -> Iterator[set[str]]:
    """Yield a set that has, after the block, what code in it looked at: names of headers, `SESSION`, or `EVERY`."""
    proxy: Any = request
    asking = vars(proxy._get_current_object())  # noqa: SLF001 - werkzeug's documented way through a proxy
    proxy = request_ctx
    context = vars(proxy._get_current_object())  # noqa: SLF001 - the same; `flask.session` would be a look itself
    session = context.get("_session", context.get("session"))
    before = getattr(session, "accessed", False)
    seen: set[str] = set()
    headers, parsed = asking["headers"], {name: asking.pop(name) for name in _PARSED if name in asking}
    asking["headers"] = _WatchedHeaders(asking["environ"], seen)
    if session is not None:
        session.accessed = False
    try:
        yield seen
    finally:
        asking["headers"] = headers
        asking.update(parsed)
        if session is not None:
            if session.accessed:
                seen.add(SESSION)
            session.accessed = before or session.accessed
