"""The live page's addresses: what they show, who may look, who may act."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from cachebus import Cache, CacheSettings, Client
from cachebus.bus.dead_letters import DeadLetters
from cachebus.cache.foresight.prediction.follows import LoadedAhead, note_reasons
from cachebus.cache.upkeep.reporter import Observed, Reporter
from cachebus.limits.limiter import RateLimiter
from cachebus.limits.seen import RefusedLately, SeenLimit
from cachebus.locks.locks import Locks
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.page.routes import static_files
from cachebus.monitoring.page.tabs.inventory import LimitUse
from cachebus.monitoring.page.tabs.limits import known_limits
from cachebus.monitoring.sockets import OpenSocket, SocketsTold, tell_sockets
from cachebus.monitoring.timeline import Timeline
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.page_site import COOKIE, Site, fail_a_mail, site
from tests.support.waiting import until

SUMMARY = "portfolio:{user_id}:summary"


async def flush(cache: Cache) -> None:
    """Have a process say at once what it counted."""
    assert cache._running is not None
    assert cache._running.reporter is not None
    await cache._running.reporter.flush()


# -- what it shows ----------------------------------------------------------------------------------------------------


async def test_the_page_is_small_and_runs_nothing_foreign(browser: httpx.AsyncClient) -> None:
    """What a browser loads is under 60 KB as it is sent, and the policy lets it load nothing from anywhere else."""
    page = await browser.get("/")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    loaded, found_before = int(page.headers["content-length"]), {}
    for path in static_files().keys() - {"page.html"}:
        found = await browser.get(f"/page/{path}")
        assert found.status_code == 200
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "no-cache"
        found_before[path] = found.headers["etag"]
        later = path.startswith("tabs/") and path != "tabs/now.js"  # with its tab
        loaded += 0 if later or path == "vendor/LICENSE.txt" else int(found.headers["content-length"])
    assert loaded < 60_000
    again = await browser.get("/page/app.js", headers={"If-None-Match": found_before["app.js"]})
    assert (again.status_code, again.content) == (304, b"")
    script = (await browser.get("/page/vendor/uplot.js")).text
    assert script.startswith("/*! https://github.com/leeoniya/uPlot (v1.6.32) */")
    assert (await browser.get("/page/vendor/LICENSE.txt")).text.startswith("The MIT License (MIT)")


async def test_it_adds_up_what_views_did(shop: Site, browser: httpx.AsyncClient) -> None:
    """The table has a line for each view: requests, hits, load time, bytes, TTL, and what loading cost."""
    for user in (1, 1, 1, 2):
        await shop.cache.views[SUMMARY](user)
    await flush(shop.cache)
    said = (await browser.get("/page/api/views?window=10m")).json()["data"]
    (row,) = [row for row in said["rows"] if row["name"] == SUMMARY]
    assert (row["requests"], row["loads"], row["memory"], row["ttl_ms"]) == (4, 2, 2, 300_000)
    assert row["load_ms"] >= 10
    assert row["cost_ms"] == pytest.approx(2 * row["load_ms"], abs=1)
    assert row["raw_bytes"] > 0
    for window in ("1h", "24h"):
        now = (await browser.get(f"/page/api/now?window={window}")).json()["data"]
        assert (now["reads"]["memory"], now["reads"]["loads"]) == (2, 2)


async def test_it_says_how_soon_events_took_effect(shop: Site, browser: httpx.AsyncClient) -> None:
    """Percentiles from publication to commit, of every event a worker handled."""
    await shop.bus.publish("trade:created", {"user_id": 7})
    await until(lambda: shop.cache.observed.latencies.total() == 1, "the event to be handled")
    took_ms = float(*shop.cache.observed.latencies)
    await flush(shop.cache)
    fresh = (await browser.get("/page/api/now")).json()["data"]["fresh"]
    assert (fresh["events"], fresh["p50"], fresh["p99"]) == (1, took_ms, took_ms)
    assert fresh["within"] == (took_ms <= fresh["target_ms"])


async def test_the_state_names_what_is_wrong(shop: Site, browser: httpx.AsyncClient) -> None:
    """Green in the beginning; a dead letter turns it amber, and the reason says where to look."""
    assert (await browser.get("/page/api/state")).json()["state"]["level"] == "ok"
    await fail_a_mail(shop)

    async def verdict() -> Any:
        found = (await browser.get("/page/api/state")).json()["state"]
        return found if found["level"] == "warn" else None

    found = await until(verdict, "amber")
    wrong = [reason for reason in found["reasons"] if reason["level"] != "ok"]
    assert [reason["tab"] for reason in wrong] == ["failures"]
    assert wrong[0]["since_ms"] > 0


async def test_without_redis_the_page_still_says_so(own_server: PrivateServer) -> None:
    """While the server is away the answer comes, and is red; when it is back all is green again."""
    async with (
        Cache(settings=CacheSettings(url=own_server.url)) as cache,
        site(cache) as shop,
        httpx.AsyncClient(base_url=shop.url, timeout=30) as browser,
    ):

        async def level() -> str:
            return str((await browser.get("/page/api/now")).json()["state"]["level"])

        assert await level() == "ok"
        own_server.kill()
        await until(lambda: not cache.client.store.up, "the outage")
        assert await level() == "bad"
        own_server.restart()
        await cache.client.store.ready()

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
    """The inspector tells value, view and state, as a reader would find them; and why it was loaded ahead."""
    await shop.cache.views[SUMMARY](7)
    entry = shop.cache.names.entry("portfolio:7:summary", shop.cache.views[SUMMARY].fingerprint)
    why = LoadedAhead("cart:{user_id}|portfolio:{user_id}:summary|0|1d", 0.6, 300, 120.0)
    await note_reasons(shop.cache.client, [(entry, why, 60_000)])
    (copy,) = (await browser.get("/page/api/key", params={"key": "portfolio:7:summary"})).json()["data"]["copies"]
    assert (copy["valid"], copy["views"], json.loads(copy["value"])["value"]) == (True, [SUMMARY], 7000.0)
    assert copy["loaded_ahead"].startswith("after cart:{user_id} the same user reads portfolio:{user_id}:summary (last")
    assert copy["loaded_ahead"].endswith("60 % of 300 within 2 min; not used yet")
    await shop.cache.invalidate(tags=["user:7"])
    (copy,) = (await browser.get("/page/api/key", params={"key": "portfolio:7:summary"})).json()["data"]["copies"]
    (old,) = copy["made_old_by"]
    assert (old["scope"], old["causes"][0].partition(" ")[0]) == ("t:user:7", "process")


async def test_limits_and_locks_are_shown_as_they_stand(shop: Site, browser: httpx.AsyncClient) -> None:
    """Each strategy's counter says how much it has counted; a held lock says who has it, and who is next is counted."""
    limiter, locks = RateLimiter(shop.cache.client, patience="5s"), Locks(shop.cache.client, owner="importer")
    for strategy, limit in (("sliding_window", 5), ("sliding_window", 5000), ("token_bucket", 5), ("fixed_window", 5)):
        for _ in range(3):
            await limiter.check(f"{strategy}-{limit}", limit=limit, window="10m", strategy=strategy)
    async with locks.lock("import:prices", "30s") as held:
        said = (await browser.get("/page/api/limits")).json()["data"]
    await locks.close()
    uses = {use["key"]: use["used"] for use in said["limits"]}
    assert uses == {
        "sliding_window-5": 3,
        "sliding_window-5000": 3,
        "token_bucket-5": 3,
        "fixed_window-5": 3,
    }
    (lock,) = said["locks"]
    assert (lock["name"], lock["owner"], lock["token"], lock["waiting"]) == ("import:prices", "importer", held.token, 0)
    assert 0 < lock["left_ms"] <= 30_000


async def test_a_limit_stands_beside_what_is_used_of_it(shop: Site, browser: httpx.AsyncClient) -> None:
    """With how often it refused in the last minute, from memory too, once processes that enforce it have answered."""
    await shop.cache.views[SUMMARY](7)
    limiter = RateLimiter(shop.cache)
    for _ in range(7):
        await limiter.check("login:7", limit=5, window="1m")
    await limiter.check("export:7", limit=100, window="1h")
    await flush(shop.cache)
    said = (await browser.get("/page/api/limits")).json()["data"]
    assert [(use["limit"], use["refused"]) for use in said["limits"]] == [(None, None)] * 2
    await flush(shop.cache)
    said = (await browser.get("/page/api/limits")).json()["data"]
    rows = [(use["key"], use["used"], use["limit"], use["window_ms"], use["refused"]) for use in said["limits"]]
    assert rows == [("login:7", 5, 5, 60_000, 2), ("export:7", 1, 100, 3_600_000, 0)]
    assert said["answered"] == 1
    assert 0 <= said["walked_ms_ago"] < 60_000


def test_what_processes_say_of_a_limit_is_added_up() -> None:
    """Also of one that refuses much and is not among the busiest counters; one that nobody knows stays as it is."""
    used = [LimitUse("a", "log", 2, 1000, "ns:limit:{a}:log"), LimitUse("b", "log", 9, 1000, "ns:limit:{b}:log")]
    seen = [SeenLimit("ns:limit:{a}:log", 5, 1000, 1), SeenLimit("ns:limit:{a}:log", 5, 1000, 2)]
    seen += [SeenLimit("ns:limit:{c}:fixed", 1, 1000, 7), SeenLimit("ns:limit:{d}:fixed", 1, 1000, 0)]
    rows = [(row.key, row.used, row.limit, row.refused) for row in known_limits(used, seen)]
    assert rows == [("c", None, 1, 7), ("a", 2, 5, 3), ("b", 9, None, None)]


def test_refusals_of_the_last_minute_are_counted() -> None:
    """In parts of ten seconds: what is older is gone, and a clock that steps back adds nothing."""
    refusals, second = RefusedLately(), 1_000_000
    for at in (0, 1, 30, 59):
        refusals.add(1_000_000 * second + at * second)
    assert refusals.lately(1_000_059 * second) == 4
    assert refusals.lately(1_000_065 * second) == 2
    assert refusals.lately(1_000_000 * second) == 2
    assert refusals.lately(1_000_119 * second) == 0
    assert refusals.lately(9_000_000 * second) == 0


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
    assert await DeadLetters(shop.cache.client).count() == 1
    assert await Audit(shop.cache.client).newest() == []


async def test_looking_is_not_acting(shop: Site, browser: httpx.AsyncClient) -> None:
    """On a page that is open to all everything is visible without a session, and nothing can be done."""
    said = (await browser.get("/page/api/failures")).json()
    assert len(said["can"]) == 13
    for verb in said["can"]:
        assert (await browser.post(f"/page/api/{verb}", json={})).status_code == 403, verb


async def test_a_lock_is_taken_away_from_the_holder_that_is_meant(shop: Site, admin: httpx.AsyncClient) -> None:
    """Whoever acquired it meanwhile keeps it; who did it is in the audit log before."""
    locks, others = (Locks(shop.cache.client, owner=owner) for owner in ("importer", "exporter"))
    first = await locks.lock("import:prices", "30s", renew=False).acquire()
    asked = {"name": "import:prices", "token": first.token}
    answer = await admin.post("/page/api/locks/unlock", json=asked)
    assert answer.json() == {"done": "lock 'import:prices': taken away"}
    assert await locks.holder("import:prices") is None
    second = await others.lock("import:prices", "30s", renew=False).acquire()
    answer = await admin.post("/page/api/locks/unlock", json=asked)
    assert answer.json()["done"].endswith("that holder does not have it any more; nothing was done")
    holder = await locks.holder("import:prices")
    assert holder is not None
    assert (holder.owner, holder.token) == ("exporter", second.token)
    bad = await admin.post("/page/api/locks/unlock", json={"name": "", "token": 1})
    assert (bad.status_code, bad.json()["error"]) == (400, "name: '' must be a text that says what is locked")
    for each in (others, locks):
        await each.close()
    records = await Audit(shop.cache.client).newest()
    assert [(record.who, record.action) for record in records] == [("ada", "locks/unlock")] * 3
    assert records[-1].target == json.dumps(asked, separators=(",", ":"))


@pytest.mark.parametrize("bad", ["x", "", "1-", "17000-0\n", "-", "+", "1e3-0"])
async def test_what_is_no_letters_id_is_named(admin: httpx.AsyncClient, bad: str) -> None:
    """A bad id is the asker's mistake, not an outage."""
    for verb in ("letters/retry", "letters/discard"):
        answer = await admin.post(f"/page/api/{verb}", json={"ids": [bad]})
        assert answer.status_code == 400
        assert "is not the id of a dead letter" in answer.json()["error"]


async def test_a_retry_says_what_became_of_it(
    shop: Site, admin: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Failed again: the reason, and the letter with its id and the attempts of both. Mended: handled.

    Who did it is in the audit log, each death is one line of the log.
    """

    async def retried(letter_id: str) -> dict[str, Any]:
        answer = await admin.post("/page/api/letters/retry", json={"ids": [letter_id]}, timeout=20)
        said: dict[str, Any] = answer.json()
        return said

    letter_id = await fail_a_mail(shop)
    said = await retried(letter_id)
    assert said["done"].startswith("1 of 1 put back: 1 failed again: ConnectionRefusedError: smtp.example.com")
    (letter,) = await DeadLetters(shop.cache.client).newest()
    assert (letter.letter_id, letter.attempts, letter.id) == (letter_id, 2, "mail-1")
    lines = [record.getMessage() for record in caplog.records if "dead-lettered" in record.getMessage()]
    assert [line.partition(": Conn")[0] for line in lines] == [
        f"dead-lettered (failed): event mail-1 on mail:requested, {letter.handler}, {attempts}"
        for attempts in ("1 attempt", "2 attempts")
    ]
    shop.mended.set()
    assert (await retried(letter.letter_id))["done"] == "1 of 1 put back: 1 handled"
    assert (await admin.get("/page/api/failures")).json()["data"]["total"] == 0
    record, _ = await Audit(shop.cache.client).newest()
    target = {"ids": [letter.letter_id], "match": None}
    assert (record.who, record.action, json.loads(record.target)) == ("ada", "letters/retry", target)


async def test_sockets_are_those_that_gateways_tell(shop: Site, browser: httpx.AsyncClient) -> None:
    """Asked when somebody looks; a gateway that does not answer within a second is shown with what it last reported."""

    def told(user: str) -> SocketsTold:
        everybody = [OpenSocket(each, [f"user:{each}"], 0, 2, "17-1", 1_700_000_000_000) for each in ("7", "8")]
        return SocketsTold("web-1.17", 2, [each for each in everybody if user in ("", each.user)])

    client = shop.cache.client
    observed = Observed()
    observed.gauges["sockets"] = lambda: 3.0
    await Reporter(client, shop.cache.stats, observed, name="web-2.9").flush()
    telling = asyncio.create_task(tell_sockets(client, told))
    try:
        await until(lambda: is_heard(client), "the gateway listens")
        found = (await browser.get("/page/api/browsers", params={"user": "7"})).json()["data"]
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    assert [(each["gateway"], each["socket"]["topics"]) for each in found["sockets"]] == [("web-1.17", ["user:7"])]
    gateways = [(each["process"], each["sockets"], each["answered"]) for each in found["gateways"]]
    assert gateways == [("web-1.17", 2, True), ("web-2.9", 3, False)]


async def is_heard(client: Client) -> bool:
    """Whether somebody listens for questions about sockets."""
    heard: list[object] = await client.store.call("PUBSUB", "NUMSUB", client.names.bus("sockets"))
    return bool(heard[1])


async def test_a_purge_counts_first_and_reaches_one_user(shop: Site, admin: httpx.AsyncClient) -> None:
    """The count invalidates nothing; the purge makes user 1's entries unreadable, and leaves user 12's alone."""
    for user in (1, 12):
        await shop.cache.views[SUMMARY](user)
        await shop.cache.views["portfolio:{user_id}:trades:{page}"](user, 1)
    count = await admin.get("/page/api/reach", params={"kind": "user", "name": "1"})
    assert count.json()["data"] == {"by_name": {"prefix 'portfolio:1:'": 2, "tag 'user:1'": 2}, "entries": 2}
    valid = await admin.get("/page/api/key", params={"key": "portfolio:1:summary"})
    assert valid.json()["data"]["copies"][0]["valid"]
    answer = await admin.post("/page/api/purge", json={"kind": "user", "name": "1"})
    assert answer.status_code == 200
    causes = [cause for step in await Timeline(shop.cache.client).look() for cause in step.causes]
    assert {(cause.kind, cause.who, cause.what) for cause in causes} == {("admin", "ada", "purge")}
    states = {
        key: (await admin.get("/page/api/key", params={"key": key})).json()["data"]["copies"][0]["valid"]
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
        said = (await admin.get("/page/api/jobs")).json()["data"]
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
    listed = (await admin.get("/page/api/browsers", params={"user": "7"})).json()["data"]["sessions"]
    assert sorted(session["ip"] for session in listed) == ["10.0.0.1", "10.0.0.2"]
    answer = await admin.post("/page/api/sessions/end", json={"user": "7"})
    assert answer.json() == {"done": "2 sessions ended"}
    assert (await admin.get("/page/api/browsers", params={"user": "7"})).json()["data"]["sessions"] == []


async def test_nothing_is_written_while_people_look(shop: Site, connect: Connect, browser: httpx.AsyncClient) -> None:
    """Every figure together leaves no key behind but what processes are asked, and that ends within half a minute."""
    del connect
    await browser.get("/page/api/now")
    client = shop.cache.client

    async def keys() -> set[bytes]:
        return set(await client.store.call("KEYS", f"*{client.names.namespace}*"))

    before = await keys()
    looks = ("now?window=24h", "views", "view?name=a", "events", "event?id=a", "failures", "jobs", "browsers?user=1")
    looks += ("keys?kind=tag&name=a", "key?key=a", "reach?kind=tag&name=a", "user?user=1", "limits", "machine")
    for path in (*looks, "advice", "audit", "find?q=a", "state"):
        assert (await browser.get(f"/page/api/{path}")).status_code == 200, path
    asked = client.names.bus("asked")
    assert await keys() - before == {asked.encode()}
    assert 0 < await client.store.call("TTL", asked) <= 30


async def test_the_page_works_on_the_stand_in_server() -> None:
    """Where there is no Valkey for the platform: figures, tail and actions, on fakeredis."""
    with PrivateServer.start(kind="fakeredis") as standing_in:
        async with (
            Cache(settings=CacheSettings(url=standing_in.url)) as cache,
            site(cache) as shop,
            httpx.AsyncClient(
                base_url=shop.url, headers={"Origin": shop.url}, cookies=await shop.admin(), timeout=30
            ) as browser,
        ):
            await cache.views[SUMMARY](7)
            await flush(cache)
            await shop.bus.publish("trade:created", {"user_id": 7})
            said = (await browser.get("/page/api/views")).json()
            assert said["state"]["known"]
            assert [row["requests"] for row in said["data"]["rows"] if row["name"] == SUMMARY] == [1]
            async with browser.stream("GET", "/page/api/tail") as tail:
                async for line in tail.aiter_lines():
                    if line.startswith("data: "):
                        break
            assert json.loads(line.removeprefix("data: "))["scopes"] == ["t:user:7"]
            assert (await browser.post("/page/api/purge", json={"kind": "tag", "name": "a"})).status_code == 200
