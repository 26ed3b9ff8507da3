"""Rate limits in front of an ASGI application: 429 with the reason, and headers that let clients slow down before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cachebus.errors import ConfigurationError
from cachebus.integrations.asgi.address import checked_proxies, client_address, network_of
from cachebus.integrations.asgi.refusal import App, Header, Message, Receive, Scope, Send, refuse
from cachebus.limits.limiter import RateLimiter
from cachebus.limits.rules import Limit, RateLimitResult

PROBLEMS = "https://iana.org/assignments/http-problem-types#"
SHARED = "http"
"""The slot of rules that count different subjects: all of them, so that one script can decide."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests a limit counts, and for whom. Its name, in headers and metrics, is the limit's.

    *path* and what lies below it; *method*, all when None. *subject* says who is counted, None: this request is not.
    Without one it is the client's address (of IPv6 its /64). With *shadow* it counts and refuses nobody.
    """

    limit: Limit
    path: str = "/"
    method: str | None = None
    subject: Callable[[Scope], str | None] | None = None
    shadow: bool = False

    def counts(self, scope: Scope) -> bool:
        """Tell whether this rule looks at the request at all."""
        base = self.path.rstrip("/")
        below = scope["path"] == base or scope["path"].startswith(base + "/")
        return below and (self.method is None or scope.get("method", "GET") == self.method)


class RateLimitMiddleware:
    """Refuses requests beyond the limits of *rules*, before the application sees them. One round trip a request.

    All rules that a request meets count it, or, if one refuses, none. *proxies*: how many of yours each request passes.
    In a cluster, rules of the client's address spread over its nodes; as soon as one rule has a *subject* of its own,
    the counters of all live in one slot.
    Source: draft-ietf-httpapi-ratelimit-headers-10 (headers, problem types).
    """

    def __init__(self, app: App, *, limiter: RateLimiter, rules: Iterable[Rule], proxies: int = 0) -> None:
        given: object = rules
        listed = tuple(given) if isinstance(given, Iterable) else (given,)
        self._rules = tuple(rule for rule in listed if isinstance(rule, Rule))
        if len(self._rules) < len(listed):
            raise ConfigurationError(f"rules: {given!r} must be a list of Rule: [Rule(Limit(100, 60))]")
        self._app = app
        self._limiter = limiter
        self._proxies = checked_proxies(proxies)
        names = [rule.limit.name for rule in self._rules]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"rules: each limit needs a name of its own, not {', '.join(names)}")
        self._spread = all(rule.subject is None for rule in self._rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        rules = [rule for rule in self._rules if rule.counts(scope)]
        await self._check(scope, [rule for rule in rules if rule.shadow])
        result = await self._check(scope, [rule for rule in rules if not rule.shadow])
        if result is None:
            return await self._app(scope, receive, send)
        results = result.each or (result,)
        if not result:
            return await _refuse(scope, send, [each for each in results if not each])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(results)]
            await send(message)

        return await self._app(scope, receive, send_with_headers)

    async def _check(self, scope: Scope, rules: Sequence[Rule]) -> RateLimitResult | None:
        if not rules:
            return None
        address = network_of(client_address(scope, self._proxies))
        counted: dict[str, Limit] = {}
        for rule in rules:
            subject = address if rule.subject is None else rule.subject(scope)
            if subject is not None:
                counted[rule.limit.name if self._spread else f"{rule.limit.name}:{subject}"] = rule.limit
        if not counted:
            return None
        return await self._limiter.check_all(address if self._spread else SHARED, counted)


async def _refuse(scope: Scope, send: Send, refusals: Sequence[RateLimitResult]) -> None:
    closed = any(refusal.source == "closed" for refusal in refusals)
    problem: dict[str, Any] = {
        "type": PROBLEMS + ("temporary-reduced-capacity" if closed else "quota-exceeded"),
        "title": "Requests cannot be counted just now" if closed else "Too many requests",
        "violated-policies": [refusal.policy.name for refusal in refusals],
    }
    headers = _headers(refusals)
    waits = [refusal.retry_after for refusal in refusals]
    if None not in waits:
        headers.append((b"retry-after", b"%d" % max(math.ceil(wait) for wait in waits if wait is not None)))
    await refuse(scope, send, 503 if closed else 429, problem, headers)


def _headers(results: Iterable[RateLimitResult]) -> list[Header]:
    """Return both fields; `t` is when more quota comes back, and `Retry-After` is never earlier."""
    counted = [result for result in results if result.source not in {"open", "closed"}]
    if not counted:
        return []
    policies, states = [], []
    for result in counted:
        rule = result.policy
        window = f";w={math.ceil(rule.window_ms / 1000)}"
        policies.append(f'"{rule.name}";q={rule.limit}{window}')
        states.append(f'"{rule.name}";r={result.remaining};t={math.ceil(result.reset_after)}')
    return [
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(states).encode()),
    ]
