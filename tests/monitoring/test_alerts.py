"""Who is told of what: once it lasts, once, and again when it is over; through silence, refusal and an outage."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cachebus import Cache, CacheSettings, Client
from cachebus.cache.upkeep.reporter import releases_key
from cachebus.errors import CannotStart
from cachebus.monitoring.verdict import gathering
from cachebus.monitoring.verdict.alerting import AlertMessage, alert_of, json_form, slack_form
from cachebus.monitoring.verdict.assessment import Assessment, Level, Reason, Signs, verdict
from cachebus.monitoring.verdict.chronicle import AlertRules, Chronicle, Sample, WatchState, time_to_full_ms
from cachebus.monitoring.verdict.gathering import Gathering
from cachebus.monitoring.verdict.marks import Mark, with_causes
from cachebus.monitoring.verdict.thresholds import thresholds
from cachebus.monitoring.verdict.watch import Watch
from cachebus.monitoring.verdict.webhook import NotDelivered, Webhook
from cachebus.testing.server import PrivateServer
from cachebus.worker.settings import WorkerSettings
from tests.support.page_site import Site, fail_a_mail, served
from tests.support.waiting import until

RULES = AlertRules(told=True, level="warn", after_ms=60_000)
MINUTE = 60_000.0


def said(*reasons: tuple[str, Level], since_ms: float = 0.0) -> Assessment:
    """Return a state with these reasons."""
    found = [Reason(level, f"{key} is wrong", "machine", key, since_ms) for key, level in reasons]
    return Assessment(found[0].level if found else "ok", "Something is." if found else "Everything flows.", found)


def test_what_lasts_is_told_once_and_what_flaps_is_one_alarm() -> None:
    """Nothing in the first minute; then once; gone for less than two minutes is not over; then it is resolved."""
    state, told = WatchState(), []
    steps = [(0.5, True), (1.0, True), (1.5, True), (2.0, False), (3.5, True), (4.0, False), (5.9, False), (6.1, False)]
    for minute, wrong in steps:
        found = said(("lag", "warn")) if wrong else said()
        state.firing, alert = alert_of(state, found, minute * MINUTE, RULES)
        told.append(alert.state if alert is not None else "")
    assert told == ["", "firing", "", "", "", "", "resolved", ""]


def test_another_reason_is_told_and_a_lesser_level_is_not() -> None:
    """By default only what somebody should look at now; a second reason besides the first is news."""
    rules, state = AlertRules(told=True), WatchState()
    firing, alert = alert_of(state, said(("lag", "warn")), 2 * MINUTE, rules)
    assert (firing, alert) == ({}, None)
    state.firing, alert = alert_of(state, said(("away", "bad")), 2 * MINUTE, rules)
    assert alert is not None
    both = said(("away", "bad"), ("queued", "bad"))
    state.firing, alert = alert_of(state, both, 3 * MINUTE, rules)
    assert alert is not None
    assert ([each.key for each in alert.reasons], alert.level) == (["away", "queued"], "bad")


def test_a_message_is_plain_whatever_stands_in_it() -> None:
    """Slack's form holds no link, mention or markup of a stranger; JSON holds every reason with its since-when."""
    reason = Reason(
        "bad", "job <!channel> & <http://evil|x> failed", "jobs", "failed jobs", 1000.0, began="9 s after a"
    )
    alert = AlertMessage(
        "firing", "bad", "It <failed>.", 61_000.0, [reason], [], "production", "shop", "4d5e", "https://p"
    )
    text = json.loads(slack_form(alert))["text"]
    assert "&lt;!channel&gt; &amp; &lt;http://evil|x&gt; failed, for 1 minute (began 9 s after a)" in text
    assert text.startswith("🔴 *production shop*: It &lt;failed&gt;.")
    assert text.endswith("<https://p|the live page>")
    plain = json.loads(json_form(alert))
    assert (plain["version"], plain["state"], plain["reasons"][0]["since_ms"]) == (1, "firing", 1000.0)


def test_every_reason_is_among_the_signs_and_says_where_it_matters() -> None:
    """What would page you is what does: a sign is amber or red where the state is."""
    wrong = [Signs(away=["Redis"]), Signs(memory=0.97), Signs(clients=0.9), Signs(unheld=[0]), Signs(queued=2)]
    wrong += [Signs(waiting=5000), Signs(p50_ms=float("inf"), p99_ms=float("inf")), Signs(stale_detected=1)]
    wrong += [Signs(letters=1), Signs(late_jobs=["report"]), Signs(hit_rate=0.79), Signs(load_errors=10, loads=90)]
    wrong += [
        Signs(lag_ms=400),
        Signs(evictions=12),
        Signs(unready=["worker a is broken"]),
        Signs(slow_hits={"a": 6.0}),
    ]
    for signs in wrong:
        assert thresholds(signs)[0].level == verdict(signs).level, signs
    assert {each.level for each in thresholds(Signs())} == {"ok"}


def test_memory_is_full_when_it_grows_on_as_it_does() -> None:
    """One purge or one import does not turn the answer; without growth or limit there is none."""

    def samples(*mib: float, limit: int = 200) -> list[Sample]:
        return [Sample(at * MINUTE, int(m * 2**20), limit * 2**20, 0, 0, 0) for at, m in enumerate(mib)]

    growing = samples(*range(100, 160))
    assert time_to_full_ms(growing) == pytest.approx(41 * MINUTE, rel=0.01)
    growing[30] = samples(*[1.0] * 31)[30]
    assert time_to_full_ms(growing) == pytest.approx(41 * MINUTE, rel=0.01)
    assert time_to_full_ms(samples(*[100.0] * 60)) is None
    assert time_to_full_ms(samples(*range(100, 160), limit=0)) is None
    assert time_to_full_ms([]) is None


def test_what_happened_right_before_is_named() -> None:
    """The last release or action within ten minutes before; not what came after, nor what is long past."""
    found = said(("lag", "warn"), since_ms=700_000.0)
    known = [
        Mark(1000.0, "deploy", "release a"),
        Mark(660_000.0, "admin", "ada: purge"),
        Mark(701_000.0, "deploy", "b"),
    ]
    assert with_causes(found, known).reasons[0].began == "40 s after ada: purge"
    assert with_causes(found, known[:1]).reasons[0].began == ""


@asynccontextmanager
async def hook(status: list[int]) -> AsyncIterator[tuple[str, list[Any]]]:
    """Serve a webhook that answers with the status in the list; yields its address and what it got."""
    got: list[Any] = []

    async def take(request: Request) -> Response:
        got.append(await request.json())
        return Response(status_code=status[0], headers={"Location": "/elsewhere"} if status[0] == 302 else None)

    async with served(Starlette(routes=[Route("/hook", take, methods=["POST"])])) as url:
        yield f"{url}/hook", got


async def watch_of(client: Client, url: str, name: str = "w1", rules: AlertRules | None = None) -> Watch:
    """Return a watch that tells at once."""
    rules = rules or AlertRules(told=True, level="warn", after_ms=0)
    return Watch(
        Gathering(client, shards=1, scheduler=None), name=name, rules=rules, webhook=Webhook(url), page="https://p"
    )


async def test_one_worker_watches_and_the_next_goes_on(shop: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told once by two of them; the second takes over with all that was known, and does not tell it again."""
    monkeypatch.setenv("ENVIRONMENT", "staging")
    monkeypatch.setattr(gathering, "FAST_S", 0.0)
    client, status = shop.cache.client, [200]
    await client.store.call("ZADD", releases_key(client), client.now_us() - 30_000_000, "4d5e6f")
    await client.store.call("EXPIRE", releases_key(client), 60)
    async with hook(status) as (url, got):
        one, other = await watch_of(client, url), await watch_of(client, url, "w2")
        await one.look()
        assert got == []
        await fail_a_mail(shop)
        for watch in (one, other):
            await watch.look()
        (message,) = got
        assert (message["state"], message["environment"], message["page"]) == ("firing", "staging", "https://p")
        assert message["reasons"][0]["key"] == "letters"
        assert message["reasons"][0]["began"].endswith("s after release 4d5e6f")
        await one._leave()
        await other.look()
        assert len(got) == 1
    (change,) = await Chronicle(client).changes()
    assert (change.level, change.says[:13]) == ("warn", "1 dead letter")
    state = await Chronicle(client).state()
    assert state is not None
    assert state.first_ms.keys() == {"letters", "maxmemory"}


async def test_what_is_refused_or_silenced_is_told_later(shop: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A webhook that answers 500 or redirects gets it again, the log says so once; so it is with silence."""
    client, status = shop.cache.client, [500]
    await fail_a_mail(shop)
    async with hook(status) as (url, got):
        watch = await watch_of(client, url)
        with caplog.at_level(logging.WARNING, logger="cachebus"):
            await watch.look()
            await watch.look()
            status[0] = 302
            await watch.look()
        assert len(got) == 3
        lines = [record.getMessage() for record in caplog.records if "alert" in record.getMessage()]
        assert lines == [f"alert not delivered, tried again: the webhook answers {code}" for code in (500, 302)]
        status[0] = 200
        await Chronicle(client).keep_silent("ada", 60_000)
        await watch.look()
        assert len(got) == 3
        await Chronicle(client).keep_silent("ada", 0)
        await watch.look()
        await watch.look()
        assert len(got) == 4


async def test_an_outage_is_told_by_whoever_watched_last(own_server: PrivateServer) -> None:
    """Nobody can be asked then; another worker says nothing, and afterwards the outage stands on the time axis."""
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache, hook([200]) as (url, got):
        rules = AlertRules(told=True, after_ms=0)
        one, other = [await watch_of(cache.client, url, name, rules) for name in ("w1", "w2")]
        for watch in (one, other):
            await watch.look()
        own_server.kill()
        await until(lambda: not cache.client.store.up, "the outage")
        for watch in (one, other):
            await watch.look()
        assert [message["reasons"][0]["key"] for message in got] == ["away"]
        own_server.restart()
        await cache.client.store.ready()
        await one.look()
        assert [change.level for change in await Chronicle(cache.client).changes()] == ["ok", "bad"]


async def test_an_unreachable_webhook_is_no_error_of_the_watch() -> None:
    """Its address, which is a secret, is in no message."""
    alert = AlertMessage("firing", "bad", "x", 0.0, [], [])
    with pytest.raises(NotDelivered, match=r"^the webhook cannot be reached: \w+$"):
        await Webhook("http://127.0.0.1:9/secret").send(alert)


@pytest.mark.parametrize("url", ["hooks.example.com", "ftp://a/b", "https://", "http://a b/", "file:///etc/passwd"])
def test_what_is_no_web_address_is_named_without_repeating_it(url: str) -> None:
    """The setting and the fix; a URL may hold a secret."""
    with pytest.raises(CannotStart) as refused:
        WorkerSettings.from_environment({"ALERT_URL": url, "ALERT_LEVEL": "loud"})
    (address, level) = [each for each in refused.value.problems if "ALERT" in each]
    assert address == "ALERT_URL: this is not a URL such as https://hooks.example.com/cachebus"
    assert level == "ALERT_LEVEL: 'loud' is unknown; choose warn, bad"


async def test_an_admin_asks_for_silence(shop: Site, admin: httpx.AsyncClient) -> None:
    """Who and until when stands on the page; 0 ends it; nonsense is refused."""
    await (await watch_of(shop.cache.client, "http://127.0.0.1:9/")).look()
    answer = await admin.post("/page/api/alerts/silence", json={"minutes": 60})
    assert answer.json() == {"done": "nobody is told anything for 60 minutes"}
    data = (await admin.get("/page/api/now")).json()["data"]
    assert (data["silence"]["who"], data["rules"]["told"]) == ("ada", True)
    await admin.post("/page/api/alerts/silence", json={"minutes": 0})
    assert (await admin.get("/page/api/now")).json()["data"]["silence"] is None
    for minutes in (-1, 10**9, "x"):
        assert (await admin.post("/page/api/alerts/silence", json={"minutes": minutes})).status_code == 400
