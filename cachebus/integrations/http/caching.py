"""How a response is answered and may be kept: preconditions, Cache-Control, Vary, Age, Cache-Status. Pure.

Source: RFC 9110 (13.1.2 If-None-Match, 15.4.5 304), RFC 9111 (5.1 Age, 5.2 Cache-Control), RFC 5861, RFC 9211.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from cachebus.cache.view import BoundView, View
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import names
from cachebus.integrations.http.body import Body, Header, body_of_type, json_body
from cachebus.integrations.http.renderings import Renderer, Rendering

NAME = b"cachebus"
CREDENTIALS = ("Cookie", "Authorization")
"""What decides whose answer it is: a browser that keeps one for a time must not show it to the next who signs in."""
NO_BODY = frozenset({204, 205, 304})
"""Statuses whose responses have none."""
LONGEST_CONDITION = 8192
"""Bytes of `If-None-Match` that are looked at; who sends more gets the whole answer."""
OURS = frozenset({b"etag", b"age", b"cache-status", b"content-type", b"content-length"})
"""Headers that are true of the stored body alone."""
_OPAQUE_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class ResponseParts(NamedTuple):
    """What is sent. The headers are the caller's own list."""

    status: int
    headers: list[Header]
    body: bytes


class Responder:
    """How the responses of a route may be kept. Without options: by browsers alone, which ask each time (`no-cache`).

    max_age: how long they may be shown without asking: an invalidation is not seen that long. stale_while_revalidate:
    how much longer, while the browser asks behind. public: proxies and CDNs may keep it, too. vary: request headers
    that shape the response. media_type: the view returns bytes or text, sent as they are; otherwise the body is JSON.
    """

    def __init__(
        self,
        bare: None = None,
        /,
        *,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        public: bool = False,
        vary: str | Iterable[str] = (),
        media_type: str | None = None,
    ) -> None:
        """Raises: ConfigurationError naming the option. *bare* is the view where parentheses are missing."""
        if bare is not None:
            raise ConfigurationError("write @cached_response(), with parentheses: it takes options")
        if max_age is None:
            if stale_while_revalidate is not None:
                raise ConfigurationError("stale_while_revalidate: nothing is kept without max_age; say how long")
            if public:
                raise ConfigurationError("public: proxies keep nothing without max_age; say how long")
            control = "private, no-cache"
        else:
            control = f"{'public' if public else 'private'}, max-age={_seconds(max_age, 'max_age')}"
            if stale_while_revalidate is not None:
                window = _seconds(stale_while_revalidate, "stale_while_revalidate")
                control += f", stale-while-revalidate={window}"
        self.public = public
        self.media_type = media_type
        fields = [*names(vary), *(() if max_age is None or public else CREDENTIALS)]
        for field in fields:
            if not _TOKEN.fullmatch(field):
                raise ConfigurationError(f"vary: {field!r} is not the name of a header")
        lines = [(b"cache-control", control.encode())]
        if fields:
            lines.append((b"vary", ", ".join(dict.fromkeys(fields)).encode()))
        self._kept = tuple(lines)
        make = json_body if media_type is None else body_of_type(media_type)
        self.renderer: Renderer[Body] = Renderer(make)

    def check_route(self, view: View[Any, Any] | BoundView[Any, Any]) -> None:
        """Raises: ConfigurationError where it is a method without its object, which no request brings; see `check`."""
        if isinstance(view, View) and view.is_method:
            raise ConfigurationError(
                f"view {view.name!r} is a method, and a route has no object to call it on: give cached_response the "
                "method of an object, or answer with respond(…) in an endpoint"
            )
        self.check(view)

    def check(self, view: View[Any, Any] | BoundView[Any, Any]) -> None:
        """Raises: ConfigurationError where it is no view, or its responses could reach whom they are not for."""
        view, _ = unbound(view, ())
        if isinstance(getattr(view, "view", None), View):
            raise ConfigurationError(
                f"view {view.name!r} is of cachebus.sync: FastAPI and Starlette answer from the asynchronous cache, "
                "`from cachebus import Cache`, and its view is an `async def`"
            )
        if not isinstance(view, View):
            raise ConfigurationError(f"{view!r} is no view; cached_response stands directly above @cache.view(…)")
        if self.public and view.identity is not None:
            raise ConfigurationError(
                f"view {view.name!r} is per {view.identity}: public would have proxies show one user's answer to others"
            )
        if self.media_type is None and view.codec.declared is bytes:
            raise ConfigurationError(f"view {view.name!r} returns bytes: say which, such as media_type='text/csv'")

    def answer(
        self, method: str, if_none_match: bytes | None, found: Rendering[Body], status: int = 200
    ) -> ResponseParts:
        """Return what is sent for a rendering.

        Preconditions are for GET and HEAD, and for success; what else is sent is not kept.
        """
        body = found.made
        if status < 200 or status in NO_BODY:
            return ResponseParts(status, [(b"cache-control", b"no-store")], b"")
        if method not in {"GET", "HEAD"} or status >= 300:
            sent = b"" if method == "HEAD" else body.data
            return ResponseParts(status, [*body.described, (b"cache-control", b"no-store")], sent)
        headers = [(b"etag", body.tag), *self._kept, (b"cache-status", _status(found))]
        if found.age_s is not None:
            headers.append((b"age", b"%d" % found.age_s))
        if if_none_match is not None and is_match(if_none_match, body.tag):
            return ResponseParts(304, headers, b"")
        headers += body.described
        return ResponseParts(status, headers, body.data if method == "GET" else b"")


def merged(answer: ResponseParts, others: Iterable[Header]) -> ResponseParts:
    """Return *answer* with headers that the application set beside it: they win, but for what describes the body.

    `Vary` is both. Who gets a cookie keeps nothing.
    """
    theirs = [header for header in others if header[0] not in OURS]
    if not theirs:
        return answer
    names_of_theirs = {name for name, _ in theirs}
    if b"set-cookie" in names_of_theirs:
        theirs = [header for header in theirs if header[0] != b"cache-control"]
        theirs.append((b"cache-control", b"no-store"))
        names_of_theirs.add(b"cache-control")
    replaced = names_of_theirs - {b"vary"}
    return answer._replace(headers=[each for each in answer.headers if each[0] not in replaced] + theirs)


def unbound(
    view: View[Any, Any] | BoundView[Any, Any], args: tuple[Any, ...]
) -> tuple[View[Any, Any], tuple[Any, ...]]:
    """Return the view itself, and its arguments: of a method the object first."""
    return (view.view, (view.owner, *args)) if isinstance(view, BoundView) else (view, args)


def is_match(if_none_match: bytes, tag: bytes) -> bool:
    """Return whether one of the client's tags is *tag*, compared weakly; '*' is any."""
    if if_none_match == tag:
        return True
    if len(if_none_match) > LONGEST_CONDITION:
        return False
    if if_none_match.strip() == b"*":
        return True
    return tag.removeprefix(b"W/") in _OPAQUE_TAG.findall(if_none_match)


class Asked(NamedTuple):
    """What the headers of a request ask for."""

    if_none_match: bytes | None
    fresh_after: str


def asked(headers: Iterable[Header]) -> Asked:
    """Return what a request asks for; fields that come more than once are one list."""
    tags: bytes | None = None
    clock = b""
    for name, value in headers:
        if name == b"if-none-match":
            tags = value if tags is None else tags + b", " + value
        elif name == b"fresh-after":
            clock = value if not clock else clock + b", " + value
    return Asked(tags, clock.decode("latin-1"))


def _status(found: Rendering[Body]) -> bytes:
    """Return `Cache-Status` (RFC 9211)."""
    if found.loaded:
        return b"%b; fwd=miss%b" % (NAME, b"" if found.left_s is None else b"; stored")
    kept = b"" if found.left_s is None else b"; ttl=%d" % found.left_s
    return b"%b; hit%b%b" % (NAME, kept, b"; detail=" + found.detail.encode() if found.detail else b"")


def _seconds(duration: Duration, option: str) -> int:
    ms = milliseconds(duration, option)
    if ms < 1000:
        raise ConfigurationError(f"{option}: {duration!r} is below a second, which HTTP counts in")
    return ms // 1000
