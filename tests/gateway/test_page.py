"""The live page's addresses: what they show, who may look, who may act."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import httpx
import pytest

from cachebus import Cache, CacheSettings
from cachebus.audit import Audit
from cachebus.deadletters import DeadLetters
from cachebus.locks import Locks
from cachebus.private_server import PrivateServer
from cachebus.ratelimit import RateLimiter
from gateway.page import one_use_code
from tests.conftest import Connect
from tests.gateway.page_site import COOKIE, Site, site
from tests.waiting import until

SUMMARY = "portfolio:{user_id}:summary"


@pytest.fixture
async def shop(cache: Cache) -> AsyncIterator[Site]:
    """A deployment with its page."""
    async with site(cache) as running:
        yield running


@pytest.fixture
async def browser(shop: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on this machine that nobody has signed in with."""
    async with httpx.AsyncClient(base_url=shop.url, headers={"Origin": shop.url}) as client:
        yield client


@pytest.fixture
async def admin(shop: Site) -> AsyncIterator[httpx.AsyncClient]:
    """An admin's browser, on the page."""
    async with httpx.AsyncClient(base_url=shop.url, headers={"Origin": shop.url}, cookies=await shop.admin()) as client:
        yield client


def elsewhere(shop: Site) -> httpx.AsyncClient:
    """Return a browser on another machine."""
    transport = httpx.ASGITransport(app=shop.app, client=("203.0.113.9", 4711))
    return httpx.AsyncClient(transport=transport, base_url="https://cache.example.com")


async def fail_a_mail(shop: Site) -> str:
    """Publish what cannot be handled; returns the id of the dead letter."""
    await shop.bus.publish("mail:requested", {"to": "ada@example.com"}, id="mail-1")
    letters = DeadLetters(shop.cache.link)
    (letter,) = await until(letters.newest, "a dead letter")
    return str(letter.letter_id)


async def flush(cache: Cache) -> None:
    """Have a process say at once what it counted."""
    assert cache._running is not None
    assert cache._running.reporter is not None
    await cache._running.reporter.flush()


# -- what it shows ----------------------------------------------------------------------------------------------------


async def test_the_page_is_small_and_runs_nothing_foreign(browser: httpx.AsyncClient) -> None:
    """Everything a browser loads is under 60 KB, and the policy lets it load nothing from anywhere else."""
    page = await browser.get("/")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    loaded = len(page.content)
    for path in ("style.css", "charts.js", "page.js", "icon.svg"):
        found = await browser.get(f"/page/{path}")
        assert found.status_code == 200
        loaded += len(found.content)
    assert loaded < 60_000
    assert {path.name for path in (files("gateway.page") / "static").iterdir()} == {
        *("page.html", "style.css", "charts.js", "page.js", "icon.svg")
    }


async def test_it_adds_up_what_views_did(shop: Site, browser: httpx.AsyncClient) -> None:
    """The table has a line for each view: requests, hits, load time, bytes, TTL, and what loading cost."""
    for user in (1, 1, 1, 2):
        await shop.cache.views[SUMMARY](user)
    await flush(shop.cache)
    said = (await browser.get("/page/api/now?window=10m")).json()["now"]
    (row,) = [row for row in said["views"] if row["name"] == SUMMARY]
    assert (row["requests"], row["loads"], row["memory"], row["ttl_ms"]) == (4, 2, 2, 300_000)
    assert row["load_ms"] >= 10
    assert row["cost_ms"] == pytest.approx(2 * row["load_ms"], abs=1)
    assert row["raw_bytes"] > 0
    assert said["layers"]["1h"]["memory"] == said["layers"]["24h"]["memory"] == 2


async def test_it_says_how_soon_events_took_effect(shop: Site, browser: httpx.AsyncClient) -> None:
    """Percentiles from publication to commit, of every event a worker handled."""
    await shop.bus.publish("trade:created", {"user_id": 7})
    await until(lambda: shop.cache.observed.latencies.total() == 1, "the event to be handled")
    await flush(shop.cache)
    said = (await browser.get("/page/api/now")).json()["now"]
    assert said["events"] == 1
    assert 0 < said["latency"][0] <= said["latency"][2]


async def test_the_state_names_what_is_wrong(shop: Site, browser: httpx.AsyncClient) -> None:
    """Green in the beginning; a dead letter turns it amber, and the reason says where to look."""
    assert (await browser.get("/page/api/now")).json()["now"]["verdict"]["level"] == "ok"
    await fail_a_mail(shop)

    async def verdict() -> Any:
        found = (await browser.get("/page/api/now")).json()["now"]["verdict"]
        return found if found["level"] == "warn" else None

    found = await until(verdict, "amber")
    assert [reason["panel"] for reason in found["reasons"]] == ["letters"]


async def test_without_redis_the_page_still_says_so(own_server: PrivateServer) -> None:
    """While the server is away the answer comes, and is red; when it is back all is green again."""
    async with (
        Cache(settings=CacheSettings(url=own_server.url)) as cache,
        site(cache) as shop,
        httpx.AsyncClient(base_url=shop.url) as browser,
    ):

        async def level() -> str:
            return str((await browser.get("/page/api/now")).json()["now"]["verdict"]["level"])

        assert await level() == "ok"
        own_server.kill()
        await until(lambda: not cache.link.store.up, "the outage")
        assert await level() == "bad"
        own_server.restart()
        await cache.link.store.ready()

        async def green() -> bool:
            return await level() == "ok"

        await until(green, "green")


async def test_the_tail_shows_what_an_event_led_to(shop: Site, browser: httpx.AsyncClient) -> None:
    """One happening: the event, the tag it made invalid, the topic it was told to, how long that took, and sockets."""
    async with browser.stream("GET", "/page/api/tail") as tail:
        await shop.bus.publish("trade:created", {"user_id": 7}, key="user-7")
        async for line in tail.aiter_lines():
            if line.startswith("data: "):
                break
        happening = json.loads(line.removeprefix("data: "))
    assert [(event["channel"], event["key"]) for event in happening["events"]] == [("trade:created", "user-7")]
    assert happening["scopes"] == ["t:user:7"]
    assert happening["told"] == [{"topic": "user:7", "type": "portfolio.changed"}]
    assert happening["sockets"] == 1
    assert happening["latency_ms"] > 0


async def test_a_key_is_shown_with_what_made_it_invalid(shop: Site, browser: httpx.AsyncClient) -> None:
    """The inspector tells value, view and state, as a reader would find them."""
    await shop.cache.views[SUMMARY](7)
    (copy,) = (await browser.get("/page/api/inspect", params={"key": "portfolio:7:summary"})).json()
    assert (copy["valid"], copy["views"], json.loads(copy["value"])["value"]) == (True, [SUMMARY], 7000.0)
    await shop.cache.invalidate(tags=["user:7"])
    (copy,) = (await browser.get("/page/api/inspect", params={"key": "portfolio:7:summary"})).json()
    assert list(copy["invalidated_by"]) == ["t:user:7"]


async def test_limits_and_locks_are_shown_as_they_stand(shop: Site, browser: httpx.AsyncClient) -> None:
    """Each strategy's counter says how much it has counted; a held lock says who has it, and who is next is counted."""
    limiter, locks = RateLimiter(shop.cache.link), Locks(shop.cache.link, owner="importer")
    for strategy, limit in (("sliding_window", 5), ("sliding_window", 5000), ("token_bucket", 5), ("fixed_window", 5)):
        for _ in range(3):
            await limiter.check(f"{strategy}-{limit}", limit=limit, window="10m", strategy=strategy)
    async with locks.lock("import:prices", "30s") as held:
        said = (await browser.get("/page/api/now")).json()["now"]
    await locks.close()
    uses = {use["key"]: use["used"] for use in said["inventory"]["limits"]}
    assert uses == {
        "sliding_window-5": 3,
        "sliding_window-5000": 3,
        "token_bucket-5": 3,
        "fixed_window-5": 3,
    }
    (lock,) = said["locks"]
    assert (lock["name"], lock["owner"], lock["token"], lock["waiting"]) == ("import:prices", "importer", held.token, 0)
    assert 0 < lock["left_ms"] <= 30_000


# -- who may look -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["now", "letters", "tail", "inspect?key=a", "audit", "sessions?user=1"])
async def test_other_machines_see_nothing_without_a_session(shop: Site, path: str) -> None:
    """From another machine every figure is 401."""
    async with elsewhere(shop) as browser:
        assert (await browser.get(f"/page/api/{path}")).status_code == 401
        assert (await browser.get(f"/page/api/{path}", headers={"Host": "localhost"})).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=203.0.113.9"},
        {"X-Real-IP": "203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example.com"},
    ],
)
async def test_a_proxy_or_a_foreign_name_is_not_this_machine(shop: Site, header: dict[str, str]) -> None:
    """Whoever comes through a proxy on this machine, or by a name that somebody pointed here, needs a session."""
    async with httpx.AsyncClient(base_url=shop.url) as browser:
        assert (await browser.get("/page/api/now")).status_code == 200
        assert (await browser.get("/page/api/now", headers=header)).status_code == 401


async def test_an_admin_looks_from_anywhere_and_others_do_not(shop: Site) -> None:
    """The role decides, not the login."""
    user = await shop.sessions.create("bob", {"role": "user"})
    async with elsewhere(shop) as browser:
        answer = await browser.get("/page/api/now", headers={"Cookie": f"{COOKIE}={user}"})
        assert answer.status_code == 401
        answer = await browser.get("/page/api/now", headers={"Cookie": f"{COOKIE}={(await shop.admin())[COOKIE]}"})
        assert answer.json()["me"] == {"name": "ada", "admin": True}


async def test_a_link_signs_in_once(shop: Site, browser: httpx.AsyncClient) -> None:
    """The code of `python -m gateway.page` makes an admin session the first time, and nothing the second time."""
    code = await one_use_code(shop.cache.link, "grace")
    first = await browser.post("/page/api/enter", json={"code": code})
    assert first.status_code == 200
    assert "httponly" in first.headers["set-cookie"].lower()
    assert (await browser.get("/page/api/now")).json()["me"] == {"name": "grace", "admin": True}
    assert (await browser.post("/page/api/enter", json={"code": code})).status_code == 403
    (record,) = await Audit(shop.cache.link).newest()
    assert (record.who, record.action) == ("grace", "enter")


# -- who may act ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Cookie": ""}, 403),
        ({"Cookie": f"{COOKIE}={'A' * 64}"}, 403),
    ],
)
async def test_only_an_admin_on_the_page_itself_acts(
    shop: Site, admin: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """Another site, another origin, a form, a guessed session: refused, nothing is done, nothing is in the log."""
    letter_id = await fail_a_mail(shop)
    body = json.dumps({"ids": [letter_id]})
    given = {"Content-Type": "application/json", **headers}
    if "Cookie" in headers:
        admin.cookies.clear()
    answer = await admin.post("/page/api/letters/discard", content=body, headers=given)
    assert answer.status_code == status
    assert await DeadLetters(shop.cache.link).count() == 1
    assert await Audit(shop.cache.link).newest() == []


async def test_looking_from_this_machine_is_not_acting(shop: Site, browser: httpx.AsyncClient) -> None:
    """Without a session everything is visible here, and nothing can be done."""
    assert (await browser.get("/page/api/letters")).status_code == 200
    for verb in ("letters/retry", "letters/discard", "purge", "sessions/end", "jobs/run", "jobs/pause"):
        assert (await browser.post(f"/page/api/{verb}", json={})).status_code == 403, verb


async def test_a_dead_letter_is_handled_again(shop: Site, admin: httpx.AsyncClient) -> None:
    """Retry runs its handler once more; who did that is in the audit log."""
    letter_id = await fail_a_mail(shop)
    shop.mended.set()
    answer = await admin.post("/page/api/letters/retry", json={"ids": [letter_id]})
    assert answer.json() == {"done": "1 of 1 handled again"}
    await until(lambda: shop.consumer.stats.retries == 1, "the retry")
    assert (await admin.get("/page/api/letters")).json() == []
    (record,) = await Audit(shop.cache.link).newest()
    assert (record.who, record.action, json.loads(record.target)) == ("ada", "letters/retry", {"ids": [letter_id]})


async def test_a_purge_counts_first_and_reaches_one_user(shop: Site, admin: httpx.AsyncClient) -> None:
    """The count invalidates nothing; the purge makes user 1's entries unreadable, and leaves user 12's alone."""
    for user in (1, 12):
        await shop.cache.views[SUMMARY](user)
        await shop.cache.views["portfolio:{user_id}:trades:{page}"](user, 1)
    count = await admin.get("/page/api/reach", params={"kind": "user", "name": "1"})
    assert count.json() == {"prefix 'portfolio:1:'": 2, "tag 'user:1'": 2}
    valid = await admin.get("/page/api/inspect", params={"key": "portfolio:1:summary"})
    assert valid.json()[0]["valid"]
    answer = await admin.post("/page/api/purge", json={"kind": "user", "name": "1"})
    assert answer.status_code == 200
    states = {
        key: (await admin.get("/page/api/inspect", params={"key": key})).json()[0]["valid"]
        for key in ("portfolio:1:summary", "portfolio:1:trades:1", "portfolio:12:summary", "portfolio:12:trades:1")
    }
    assert list(states.values()) == [False, False, True, True]


@pytest.mark.parametrize(
    "asked", [{"kind": "prefix", "name": ""}, {"kind": "prefix", "name": "port"}, {"kind": "all", "name": "x"}, {}]
)
async def test_a_purge_of_nothing_or_of_half_a_word_is_refused(admin: httpx.AsyncClient, asked: dict[str, str]) -> None:
    """Bad input is 400 with the reason; nothing is widened in silence."""
    answer = await admin.post("/page/api/purge", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_a_job_is_run_paused_and_resumed(shop: Site, admin: httpx.AsyncClient) -> None:
    """Run now begins a run here; a paused job says so to everybody."""

    async def job() -> dict[str, Any]:
        said = (await admin.get("/page/api/now")).json()["now"]["jobs"]
        found: dict[str, Any] = next(job for job in said if job["name"] == "warm.portfolios")
        return found

    assert (await admin.post("/page/api/jobs/run", json={"name": "warm.portfolios"})).status_code == 200

    async def is_done() -> bool:
        return (await job())["outcome"] == "done"

    await until(is_done, "the run")
    await admin.post("/page/api/jobs/pause", json={"name": "warm.portfolios", "paused": True})

    async def is_paused() -> bool:
        return bool((await job())["paused"])

    await until(is_paused, "the pause")
    assert (await admin.post("/page/api/jobs/run", json={"name": "no.such"})).status_code == 400


async def test_a_user_is_logged_out_everywhere(shop: Site, admin: httpx.AsyncClient) -> None:
    """Sessions of a user are listed, whether the application calls him 7 or "7", and ended together."""
    await shop.sessions.create(7, ip="10.0.0.1")
    await shop.sessions.create("7", ip="10.0.0.2")
    listed = (await admin.get("/page/api/sessions", params={"user": "7"})).json()
    assert sorted(session["ip"] for session in listed) == ["10.0.0.1", "10.0.0.2"]
    answer = await admin.post("/page/api/sessions/end", json={"user": "7"})
    assert answer.json() == {"done": "2 sessions ended"}
    assert (await admin.get("/page/api/sessions", params={"user": "7"})).json() == []


async def test_nothing_is_written_while_people_look(shop: Site, connect: Connect, browser: httpx.AsyncClient) -> None:
    """Every figure together leaves no key behind."""
    del connect
    await browser.get("/page/api/now")
    link = shop.cache.link

    async def keys() -> set[bytes]:
        return set(await link.store.call("KEYS", f"*{link.names.namespace}*"))

    before = await keys()
    for path in ("now?window=24h", "letters", "inspect?key=a", "reach?kind=tag&name=a", "audit", "sessions?user=1"):
        assert (await browser.get(f"/page/api/{path}")).status_code == 200, path
    assert await keys() - before == set()


async def test_the_page_works_on_the_stand_in_server() -> None:
    """Where there is no Valkey for the platform: figures, tail and actions, on fakeredis."""
    with PrivateServer.start(kind="fakeredis") as standing_in:
        async with (
            Cache(settings=CacheSettings(url=standing_in.url)) as cache,
            site(cache) as shop,
            httpx.AsyncClient(base_url=shop.url, headers={"Origin": shop.url}, cookies=await shop.admin()) as browser,
        ):
            await cache.views[SUMMARY](7)
            await flush(cache)
            await shop.bus.publish("trade:created", {"user_id": 7})
            said = (await browser.get("/page/api/now")).json()["now"]
            assert said["servers"][0]["up"]
            assert [row["requests"] for row in said["views"] if row["name"] == SUMMARY] == [1]
            async with browser.stream("GET", "/page/api/tail") as tail:
                async for line in tail.aiter_lines():
                    if line.startswith("data: "):
                        break
            assert json.loads(line.removeprefix("data: "))["scopes"] == ["t:user:7"]
            assert (await browser.post("/page/api/purge", json={"kind": "tag", "name": "a"})).status_code == 200
