"""The rate limit middleware: who is counted, what clients are told, what happens in an outage."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from cachebus.errors import ConfigurationError
from cachebus.integrations.asgi import RateLimitMiddleware, Rule, client_address
from cachebus.limits.limiter import RateLimiter
from cachebus.limits.rules import Limit
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.asgi_browser import Browser, handshake

LOGIN = Rule(Limit(5, 300, on_outage="closed", name="login"), path="/login", method="POST")


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An application that says hello, and accepts every WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("rules", [5, [5]])
async def test_rules_of_the_wrong_kind(client: Client, rules: Any) -> None:
    """Said when the middleware is made; of a list of limits, when it is asked."""
    with pytest.raises(ConfigurationError, match="must be a list of Rule"):
        RateLimitMiddleware(hello, limiter=RateLimiter(client), rules=rules)
    for limits in ([Limit(1, 60)], {"a": 5}):
        with pytest.raises(ConfigurationError, match=r"limits: .* must have names and limits"):
            await RateLimiter(client).check_all("k", limits)  # type: ignore[arg-type]


def limited(client: Client, *rules: Rule, proxies: int = 0, **options: Any) -> RateLimitMiddleware:
    limiter = RateLimiter(client, **({"patience": "5s"} | options))
    return RateLimitMiddleware(hello, limiter=limiter, rules=rules, proxies=proxies)


async def test_a_client_is_told_its_policy_its_rest_and_when_to_come_back(client: Client) -> None:
    """Fields and problem follow draft-ietf-httpapi-ratelimit-headers; Retry-After is on the 429 only, never below t."""
    browser = Browser(limited(client, LOGIN))
    for left in (4, 3, 2, 1, 0):
        answer = await browser.get("/login", method="POST")
        assert (answer.status, answer.body, answer["x-app"]) == (200, b"hello", "1")
        assert answer["ratelimit-policy"] == '"login";q=5;w=300'
        assert re.fullmatch(rf'"login";r={left};t=(300|29\d)', answer["ratelimit"])
        assert not answer["retry-after"]
    refused = await browser.get("/login", method="POST")
    assert refused.status == 429
    assert refused["ratelimit-policy"] == '"login";q=5;w=300'
    told = re.fullmatch(r'"login";r=0;t=(\d+)', refused["ratelimit"])
    assert told
    assert int(told[1]) <= int(refused["retry-after"]) <= 300
    assert refused["content-type"] == "application/problem+json"
    assert json.loads(refused.body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "violated-policies": ["login"],
    }


@pytest.mark.parametrize(
    ("path", "method", "counted"),
    [
        *[("/login", "POST", True), ("/login/", "POST", True), ("/login/otp", "POST", True), ("/login", "GET", False)],
        *[("/loginx", "POST", False), ("/", "POST", False), ("/api/login", "POST", False)],
    ],
)
async def test_a_rule_counts_its_path_and_method(client: Client, path: str, method: str, counted: bool) -> None:
    """A path counts with what lies below it, by whole segments; other requests are not even told of the rule."""
    answer = await Browser(limited(client, LOGIN)).get(path, method=method)
    assert bool(answer["ratelimit"]) is counted


async def test_each_address_has_its_own_quota_and_ipv6_one_for_a_network(client: Client) -> None:
    """Another address is another client; another address of the same /64 is the same customer."""
    app = limited(client, Rule(Limit(1, 300)))
    for address, status in [("10.0.0.1", 200), ("10.0.0.2", 200), ("10.0.0.1", 429), ("::ffff:10.0.0.2", 429)]:
        assert (await Browser(app, address).get()).status == status
    for address, status in [("2001:db8::1", 200), ("2001:db8::ffff", 429), ("2001:db8:0:1::1", 200)]:
        assert (await Browser(app, address).get()).status == status


async def test_a_spoofed_forwarded_header_changes_no_key(client: Client) -> None:
    """What a client writes into X-Forwarded-For buys it no second quota, behind a proxy of ours or without one."""
    for proxies in (0, 1):
        app = limited(client, Rule(Limit(1, 300, name=f"p{proxies}")), proxies=proxies)
        statuses = []
        for number in range(3):
            seen_by_proxy = ", 198.51.100.7" if proxies else ""
            answer = await Browser(app).get(x_forwarded_for=f"10.9.9.{number}{seen_by_proxy}")
            statuses.append(answer.status)
        assert statuses == [200, 429, 429]


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("10.0.0.1", [], 0, "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], 0, "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], 1, "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1, 2.2.2.2"], 2, "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1", "2.2.2.2"], 2, "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1"], 2, "10.0.0.1"),
        ("10.0.0.1", [], 1, "10.0.0.1"),
        ("10.0.0.1", ["junk"], 1, "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1:5000"], 1, "1.1.1.1"),
        ("10.0.0.1", ["[2001:DB8::1]:5000"], 1, "2001:db8::1"),
        ("10.0.0.1", ["2001:db8:0:0::1"], 1, "2001:db8::1"),
        ("10.0.0.1", ["::ffff:1.1.1.1"], 1, "1.1.1.1"),
        ("fe80::1%eth0", [], 0, "fe80::1"),
        (None, [], 0, "unknown"),
        (None, ["1.1.1.1"], 1, "1.1.1.1"),
        ("", [], 0, "unknown"),
    ],
)
def test_the_client_is_whom_the_outermost_proxy_of_ours_heard(
    peer: str | None, forwarded: list[str], proxies: int, address: str
) -> None:
    """Counted from the right, hop by hop; every address in one spelling; junk falls back to the peer."""
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    scope = {"client": None if peer is None else (peer, 1), "headers": headers}
    assert client_address(scope, proxies) == address


async def test_rules_that_a_request_meets_are_all_counted_or_none(client: Client) -> None:
    """A refused request is charged to no rule; only the rule that refuses is named."""
    app = limited(client, Rule(Limit(100, "1h", name="all")), Rule(Limit(2, 300, name="api")))
    browser = Browser(app)
    first = await browser.get()
    assert first["ratelimit-policy"] == '"all";q=100;w=3600, "api";q=2;w=300'
    await browser.get()
    for _ in range(3):
        refused = await browser.get()
        assert refused["ratelimit-policy"] == '"api";q=2;w=300'
        assert json.loads(refused.body)["violated-policies"] == ["api"]
    counts = app._limiter.counts
    assert counts["all", "allowed"] == 3  # twice served, once it would have allowed what the other refused
    left = await RateLimiter(client, patience="5s").check_all("203.0.113.9", {"all": Limit(100, "1h", name="all")})
    assert left.remaining == 97


async def test_a_rule_may_count_by_whom_it_likes(client: Client) -> None:
    """By a header instead of the address; requests without one are not counted by that rule, but by the others."""

    def api_key(scope: dict[str, Any]) -> str | None:
        return next((value.decode() for name, value in scope["headers"] if name == b"x-api-key"), None)

    app = limited(client, Rule(Limit(1, 300, name="key"), subject=api_key), Rule(Limit(4, 300, name="address")))
    browser = Browser(app)
    assert [(await browser.get(x_api_key=key)).status for key in ("a", "b", "a")] == [200, 200, 429]
    assert [(await browser.get()).status for _ in range(3)] == [200, 200, 429]


async def test_a_shadow_rule_counts_and_refuses_nobody(client: Client) -> None:
    """A limit that is being tried out shows in the counts, and neither in headers nor in refusals."""
    app = limited(client, Rule(Limit(1, 300, name="new"), shadow=True))
    answers = [await Browser(app).get() for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert not answers[0]["ratelimit"]
    assert app._limiter.counts["new", "allowed"] == 1


async def test_in_an_outage_closed_is_503_and_open_passes(caplog: pytest.LogCaptureFixture) -> None:
    """No outage is a 500: a closed rule says when to try again, an open one lets through and claims no quota."""
    with PrivateServer.start("appendonly no") as own:
        async with Client(own.url) as client:
            own.kill()
            page = Rule(Limit(9, 60, on_outage="open", name="page"), path="/page")
            app = limited(client, LOGIN, page, patience="25ms")
            refused = await Browser(app).get("/login", method="POST")
            assert (refused.status, refused["retry-after"], refused["ratelimit"]) == (503, "1", "")
            assert json.loads(refused.body)["type"].endswith("#temporary-reduced-capacity")
            passed = await Browser(app).get("/page")
            assert (passed.status, passed["ratelimit"]) == (200, "")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_websocket_is_refused_at_its_handshake(client: Client) -> None:
    """With the extension the client sees the 429, without it the handshake is closed before it is accepted."""
    app = limited(client, Rule(Limit(1, 300)))
    assert [message["type"] for message in await handshake(app)] == ["websocket.accept"]
    assert [message["type"] for message in await handshake(app)] == ["websocket.close"]
    start, _body = await handshake(app, extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)


async def test_other_scopes_pass(client: Client) -> None:
    """An application's lifespan is no request."""
    seen = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await RateLimitMiddleware(app, limiter=RateLimiter(client), rules=[Rule(Limit(1, 60))])(
        {"type": "lifespan"}, None, None
    )  # type: ignore[arg-type]
    assert seen == ["lifespan"]


async def test_rules_that_cannot_be_told_apart_are_refused(client: Client) -> None:
    """Two limits of one name would share a counter and a line in the headers; a negative number of proxies is none."""
    with pytest.raises(ConfigurationError, match="a name of its own"):
        limited(client, Rule(Limit(1, 60)), Rule(Limit(2, 60), path="/x"))
    with pytest.raises(ConfigurationError, match="proxies"):
        limited(client, LOGIN, proxies=-1)
