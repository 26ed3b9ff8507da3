"""What each tab's address answers, and what it says to who asks for nonsense."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.letters import RetryItem
from cachebus.cache.upkeep.reporter import causes_key, process_name, releases_key
from cachebus.errors import PublishRefused
from cachebus.freshness.cause import caused_by
from cachebus.locks.locks import Locks
from cachebus.monitoring.advice.analysis import report_key
from cachebus.monitoring.advice.computing import Analysable, report_of
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.page.window import FigureWindow
from tests.conftest import Connect
from tests.monitoring.test_page_history import reporter
from tests.monitoring.test_recording import record
from tests.support.page_site import SUMMARY, Site, declare, fail_mails, flushed
from tests.support.waiting import until


async def data(browser: httpx.AsyncClient, path: str, **query: str) -> Any:
    """Return what an address shows."""
    answer = await browser.get(f"/page/api/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


# -- views ------------------------------------------------------------------------------------------------------------


async def test_a_view_has_a_page_of_its_own(shop: Site, browser: httpx.AsyncClient) -> None:
    """Its figures by hours, who made its values old lately, what is read most, what is largest, what is declared."""
    view = shop.cache.views[SUMMARY]
    for user in (1, 1, 1, 12):
        await view(user)
    await shop.bus.publish("trade:created", {"user_id": 1}, id="t-1")
    await until(lambda: shop.consumer.stats.events == 1, "the trade to be handled")
    await flushed(shop.cache)
    shown = await data(browser, "view", name=SUMMARY)
    assert len(shown["steps"]) == 24
    counted = [step for step in shown["steps"] if step["memory"] or step["loads"] or step["causes"]]
    assert [sum(step[what] for step in counted) for what in ("memory", "loads")] == [2, 2]
    assert [step["causes"] for step in counted if step["causes"]] == [{"event": 1}]
    took = [(each["load_p50_ms"], each["load_p95_ms"]) for each in (shown["row"], shown["steps"][-1])]
    assert took[0] == took[1]
    assert took[0][1] >= took[0][0] >= 20  # the upper end of the step: a load of it takes 12 ms
    assert shown["steps"][0]["load_p95_ms"] is None
    (recent,) = shown["recent"]
    assert (recent["kind"], recent["what"], recent["times"], recent["scope"]) == ("event", "t-1", 1, "t:user:1")
    assert {each["key"] for each in shown["largest"]} == {"portfolio:1:summary", "portfolio:12:summary"}
    assert (shown["policy"]["ttl"], shown["policy"]["tags"]) == (300_000, ["user:{user_id}"])
    minutes = await data(browser, "view", name=SUMMARY, window="1h")
    assert len(minutes["steps"]) == 60
    unknown = await data(browser, "view", name="no:{such}")
    assert (unknown["row"], unknown["largest"], unknown["policy"]) == (None, [], {})


async def test_who_made_a_views_values_old_is_known_for_a_day(shop: Site, browser: httpx.AsyncClient) -> None:
    """By name, of all processes and causes: also when the journal has forgotten it."""
    await shop.cache.views[SUMMARY](1)
    for number in (1, 2):
        await shop.bus.publish("trade:created", {"user_id": number}, id=f"t-{number}")
    await until(lambda: shop.consumer.stats.events == 2, "the trades to be handled")
    with caused_by("deploy", "v42", "migrated"):
        await shop.cache.invalidate(prefix="portfolio:")
    for _ in range(3):
        await shop.cache.invalidate(keys=["portfolio:1:summary"])
    handler = next(each.name for each in shop.consumer._dispatcher.routes.handlers if each.name.endswith("traded"))
    known = {
        ("process", process_name(), "", 3),
        ("event", handler, "t-2", 2),
        ("deploy", "v42", "migrated", 1),
    }

    async def seen() -> set[tuple[str, str, str, int]]:
        recent = (await data(browser, "view", name=SUMMARY))["recent"]
        assert all(abs(each["last_ms"] - shop.cache.client.now_us() / 1000) < 60_000 for each in recent)
        return {(each["kind"], each["who"], each["what"], each["times"]) for each in recent}

    assert await seen() == known
    await flushed(shop.cache)
    client = shop.cache.client
    await client.store.call("XTRIM", client.names.journal, "MAXLEN", 0)  # as two minutes later
    forgotten = {(kind, who, "" if kind == "event" else what, times) for kind, who, what, times in known}

    async def still_known() -> bool:
        return await seen() == forgotten

    await until(still_known, "the names without the journal")  # what a look brought is kept for four seconds
    hour = client.now_us() // 3_600_000_000 * 3600
    assert 25 * 3600 < await client.store.call("TTL", causes_key(client, hour)) <= 26 * 3600


def test_a_window_is_a_name_or_two_moments() -> None:
    """Minutes as long as there are any; the bucket under way belongs to now, and to no window that somebody marked."""
    now_s = 1_000_000.0
    hour = FigureWindow.of({"window": "1h"}, now_s)
    assert [hour.holds(at) for at in (996_300, 996_420, 999_960, 1_000_020)] == [False, True, True, False]
    chosen = FigureWindow.of({"from": "999000", "until": "999300"}, now_s)
    assert (chosen.hourly, chosen.minutes) == (False, 5)
    assert [chosen.holds(at) for at in (998_940, 999_000, 999_240, 999_300)] == [False, True, True, False]
    assert FigureWindow.of({"from": "900000", "until": "950000"}, now_s).hourly


@pytest.mark.parametrize(
    "query",
    [
        {"window": "1y"},
        {"from": "x"},
        {"from": "2", "until": "1"},
        {"from": "nan"},
        {"from": "-5", "until": "1"},
        {"from": "1", "until": "1e300"},
    ],
)
async def test_a_window_that_is_none_is_named(browser: httpx.AsyncClient, query: dict[str, str]) -> None:
    """400 and the fix, on each tab that has one."""
    for tab in ("now", "views", "view"):
        answer = await browser.get(f"/page/api/{tab}", params=query)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(("window: choose", "from, until:"))


# -- events and failures ----------------------------------------------------------------------------------------------


async def test_an_events_life_is_told_step_by_step(shop: Site, browser: httpx.AsyncClient) -> None:
    """Published, waited, handled, told; what failed has its letter; of nothing there is nothing."""
    await shop.bus.publish("trade:created", {"user_id": 7}, key="user-7", id="trade-7")
    await shop.bus.publish("mail:requested", {"to": "a"}, id="mail-7")
    await until(lambda: shop.consumer.stats.events == 2, "both to be handled")
    (life,) = await data(browser, "event", id="trade-7")
    assert [step["what"] for step in life["steps"]] == ["waited", "handled", "told"]
    assert life["steps"][1]["names"] == ["t:user:7"]
    assert 0 <= life["fresh_ms"] < 10_000
    for user in (7, 12):
        await shop.cache.views[SUMMARY](user)
    (life,) = await data(browser, "event", id="trade-7")
    assert life["steps"][-1]["what"] == "read fresh"
    assert [step["names"] for step in life["steps"] if step["what"] == "read fresh"] == [["k:portfolio:7:summary"]]
    (again,) = await data(browser, "event", id=life["event"]["position"])
    assert again["event"]["id"] == "trade-7"
    (failed,) = await data(browser, "event", id="mail-7")
    assert failed["steps"][-1]["what"] == "failed"
    assert await data(browser, "event", id="no such") == await data(browser, "event") == []


async def test_an_event_says_who_published_it_and_how_long_its_handlers_took(
    shop: Site, browser: httpx.AsyncClient
) -> None:
    """As the worker remembers it, once it was asked: also of an attempt that failed; by whom, as the publisher says."""
    await shop.cache.views[SUMMARY](7)
    await shop.bus.publish("trade:created", {"user_id": 7}, id="trade-7")
    await shop.bus.publish("mail:requested", {"to": "a"}, id="mail-7")
    await until(lambda: shop.consumer.stats.events == 2, "both to be handled")
    (life,) = await data(browser, "event", id="trade-7")
    assert (life["event"]["by"], life["answered"]) == (process_name(), 0)
    await data(browser, "event", id="mail-7")
    await flushed(shop.cache)
    (life,) = await data(browser, "event", id="trade-7")
    waited, ran, handled = life["steps"][:3]
    assert (life["answered"], ran["what"], ran["who"].rpartition(".")[2]) == (1, "ran", "traded")
    assert ran["says"] == f"attempt 1 in {process_name()}; ended well"
    assert waited["from_ms"] - 5 <= waited["until_ms"] == ran["from_ms"] <= ran["until_ms"] <= handled["from_ms"] + 5
    (failed,) = await data(browser, "event", id="mail-7")
    (ran,) = [step for step in failed["steps"] if step["what"] == "ran"]
    assert ran["says"].endswith("; raised ConnectionRefusedError")


async def test_letters_are_grouped_and_chosen_together(shop: Site, admin: httpx.AsyncClient) -> None:
    """By handler and reason, since which release; what matches is retried on the server, the rest is left alone."""
    client = shop.cache.client
    await client.store.call("ZADD", releases_key(client), client.now_us() - 60_000_000, "4d5e6f")
    await client.store.call("EXPIRE", releases_key(client), 60)
    await fail_mails(shop, "a1@example.com", "b2@example.com", "other@example.com")
    shown = await data(admin, "failures")
    groups = {each["group"]["reason"]: each for each in shown["groups"]}
    assert shown["total"] == 3
    assert {each["release"] for each in groups.values()} == {"4d5e6f"}
    assert (await data(admin, "failures", text="other@"))["matching"] == 1
    (chosen,) = [each["group"] for reason, each in groups.items() if "aN@" in reason]
    match = {name: chosen[name] for name in ("kind", "channel", "handler", "reason")}
    shop.mended.set()
    answer = await admin.post("/page/api/letters/retry", json={"match": match}, timeout=20)
    assert answer.json()["done"] == "1 of 1 put back: 1 handled"
    assert (await data(admin, "failures"))["total"] == 2
    await admin.post("/page/api/letters/discard", json={"match": {"text": "other@"}})
    (left,) = (await data(admin, "failures"))["letters"]
    assert "b2@example.com" in left["payload"]
    record, *_ = await Audit(client).newest()
    assert json.loads(record.target)["match"]["text"] == "other@"


async def test_retries_that_wait_are_listed(shop: Site, browser: httpx.AsyncClient) -> None:
    """Those that are due first, with the event each is of."""
    client = shop.cache.client
    due, items = client.names.bus("retries", "0"), client.names.bus("retry-items", "0")
    for minutes in (9, 5):
        item = RetryItem("shop.mails.send", f"{minutes}-1", "mail:requested", b"{}", f"mail-{minutes}", "user:7")
        await client.store.call("HSET", items, item.name, b"1\n" + msgspec.msgpack.encode(item))
        await client.store.call("ZADD", due, client.now_us() + minutes * 60_000_000, item.name)
    first, second = (await data(browser, "failures"))["retries"]
    assert (first["id"], first["handler"], second["id"]) == ("mail-5", "shop.mails.send", "mail-9")
    assert 290_000 < first["due_in_ms"] <= 300_000
    await client.store.call("DEL", due, items)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"ids": []},
        {"match": {}},
        {"ids": ["1-0"], "match": {"text": "a"}},
        {"match": {"where": "a"}},
        {"ids": "1-0"},
    ],
)
async def test_letters_that_are_not_named_are_left_alone(
    shop: Site, admin: httpx.AsyncClient, asked: dict[str, Any]
) -> None:
    """Nothing, everything and both at once are refused: nobody discards all by a slip."""
    await fail_mails(shop, "a@example.com")
    for verb in ("letters/retry", "letters/discard"):
        assert (await admin.post(f"/page/api/{verb}", json=asked)).status_code == 400
    assert await DeadLetters(shop.cache.client).count() == 1


async def test_a_corrected_payload_must_be_json_and_its_letter_there(shop: Site, admin: httpx.AsyncClient) -> None:
    """Named as the mistake it is; the letter stays as it was."""
    await fail_mails(shop, "a@example.com")
    letters = DeadLetters(shop.cache.client)
    (letter,) = await letters.newest()
    answer = await admin.post("/page/api/letters/edit", json={"id": letter.letter_id, "payload": "{to: 1}"})
    assert (answer.status_code, answer.json()["error"][:30]) == (400, "event: these bytes are not JSO")
    with pytest.raises(PublishRefused, match="the limit is"):
        await letters.replay_changed(letter.letter_id, json.dumps("x" * 300_000).encode())
    answer = await admin.post("/page/api/letters/edit", json={"id": "1-0", "payload": "{}"})
    assert answer.json()["done"] == "this letter is gone; nothing was done"
    assert (await letters.newest())[0].payload == letter.payload


async def test_an_analysis_is_begun_from_the_page(shop: Site, admin: httpx.AsyncClient) -> None:
    """It is under way then, and a second one is refused with who began the first."""
    assert await data(admin, "advice") == {"report": None, "progress": None}
    begun = await admin.post("/page/api/advice/start", json={"minutes": 10})
    assert begun.json()["done"] == "recording for 10 minutes"
    assert (await data(admin, "advice"))["progress"]["asked_by"] == "ada"
    again = await admin.post("/page/api/advice/start", json={"minutes": 10})
    assert again.status_code == 409
    assert again.json()["error"].startswith("ada is recording for another")
    for task in asyncio.all_tasks():
        if task.get_name() == "cachebus analysis":
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert (await data(admin, "advice"))["progress"] is None
    del shop


async def test_a_report_on_the_page_names_no_key_argument_or_identity(shop: Site, admin: httpx.AsyncClient) -> None:
    """Hot keys are hashes, views are templates."""
    client, view = shop.cache.client, shop.cache.views[SUMMARY]

    async def during() -> None:
        for _ in range(3):
            await view(4_711_007)
        await shop.cache.invalidate(tags=["user:4711007"])
        await view(4_711_007)

    await view(4_711_007)
    recording = await record(client, until, shop.cache, during=during)
    report = report_of(Analysable(recording=recording, at_ms=client.now_us() / 1000, version=""))
    await client.store.call("SET", report_key(client), msgspec.json.encode(report), "EX", 60)
    shown = await data(admin, "advice")
    assert [(each["view"], each["reads"]) for each in shown["report"]["hot_keys"]] == [(SUMMARY, 4)]
    assert "4711007" not in json.dumps(shown)


# -- keys and people --------------------------------------------------------------------------------------------------


async def test_entries_are_found_by_prefix_tag_and_user(shop: Site, browser: httpx.AsyncClient) -> None:
    """Each with its age, tags and state; a key that looks like another is not among them."""
    for user in (1, 12):
        await shop.cache.views[SUMMARY](user)
    await shop.cache.invalidate(tags=["user:12"])
    shown = await data(browser, "keys", kind="prefix", name="portfolio:")
    states = {each["key"]: each["valid"] for each in shown["entries"]}
    assert states == {"portfolio:1:summary": True, "portfolio:12:summary": False}
    for kind, name in (("tag", "user:1"), ("user", "1"), ("key", "portfolio:1:summary")):
        shown = await data(browser, "keys", kind=kind, name=name)
        assert [each["key"] for each in shown["entries"]] == ["portfolio:1:summary"], kind
        assert (shown["matching"], shown["complete"]) == (1, True)


async def test_a_key_is_loaded_anew(shop: Site, admin: httpx.AsyncClient) -> None:
    """By its view's loader, arguments read from the key; one that no view here makes is only made old."""
    await shop.cache.views["portfolio:{user_id}:trades:{page}"](7, 2)
    before = (await data(admin, "key", key="portfolio:7:trades:2"))["copies"][0]
    answer = await admin.post("/page/api/keys/refresh", json={"key": "portfolio:7:trades:2"})
    assert answer.json()["done"] == "portfolio:7:trades:2: loaded anew, in every process from now on"
    after = (await data(admin, "key", key="portfolio:7:trades:2"))["copies"][0]
    assert after["valid"]
    assert after["age_ms"] < before["age_ms"] + 5000
    assert shop.cache.views["portfolio:{user_id}:trades:{page}"].stats.loads == 2
    await shop.cache.set("draft:7", "text")
    answer = await admin.post("/page/api/keys/refresh", json={"key": "draft:7"})
    assert answer.json()["done"].startswith("draft:7: made old")
    assert not (await data(admin, "key", key="draft:7"))["copies"][0]["valid"]
    assert (await admin.post("/page/api/keys/refresh", json={"key": ""})).status_code == 400


async def test_processes_say_what_they_hold_in_memory(shop: Site, browser: httpx.AsyncClient, connect: Connect) -> None:
    """Each with its next report, once somebody has asked: those that have it, since when, and those that have not."""
    view = shop.cache.views[SUMMARY]
    other, without = await connect(), await connect()
    for cache in (other, without):
        declare(cache)
    for process in (view, view, other.views[SUMMARY], without.views["market:{symbol}:quote"]):
        await process(7) if process.name == SUMMARY else await process("AAPL")
    caches = (shop.cache, other, without)
    for number, cache in enumerate(caches):
        reporter(cache)._name = f"web.{number}"  # three processes in one

    async def held() -> dict[str, list[tuple[bool, bool]]]:
        told = (await data(browser, "key", key="portfolio:7:summary"))["memory"]
        assert all(0 <= copy["age_ms"] < 60_000 for each in told for copy in each["told"])
        return {each["process"]: [(copy["valid"], copy["read"]) for copy in each["told"]] for each in told}

    await flushed(*caches)
    assert await held() == {}
    await flushed(*caches)
    assert await held() == {"web.0": [(True, True)], "web.1": [(True, False)], "web.2": []}
    await shop.cache.invalidate(tags=["user:7"])
    await flushed(shop.cache)
    assert (await held())["web.0"] == [(False, True)]
    names = [shop.cache.client.names.bus("asked"), *await shop.cache.client.store.call("KEYS", "*:answers:*")]
    for name in names:
        assert 0 < await shop.cache.client.store.call("TTL", name) <= 60


async def test_an_entry_says_whom_it_was_loaded_for(shop: Site, browser: httpx.AsyncClient) -> None:
    """A caller, a warming, a renewal after an event; what was set was not loaded."""
    view = shop.cache.views[SUMMARY]
    await view(1)
    await view.warm(2)
    with shop.cache.reading(fresh_after=await shop.cache.invalidate(tags=["user:3"])):  # as an event's `Refresh` does
        await view.warm(3)
    await shop.cache.set("draft:7", "text")
    said = []
    for key in ("portfolio:1:summary", "portfolio:2:summary", "portfolio:3:summary", "draft:7"):
        (copy,) = (await data(browser, "key", key=key))["copies"]
        said.append(copy["loaded_for"].partition(",")[0].partition(";")[0])
    assert said == ["for a caller who waited", "to warm it", "to renew it", ""]


async def test_anything_is_found_by_a_piece_of_its_name(shop: Site, browser: httpx.AsyncClient) -> None:
    """Views, jobs, locks, keys, events, letters; always a tag and a user; nothing of nonsense."""
    await shop.cache.views[SUMMARY](7)
    await shop.bus.publish("trade:created", {"user_id": 1}, id="trade-1")
    await fail_mails(shop, "a@example.com")
    (letter,) = await DeadLetters(shop.cache.client).newest()
    locks = Locks(shop.cache.client, owner="importer")
    await locks.lock("portfolio:import", "30s", renew=False).acquire()
    await flushed(shop.cache)

    async def kinds(text: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in await data(browser, "find", q=text):
            found.setdefault(each["kind"], []).append(each["name"])
        return found

    found = await kinds("portfolio:7")
    assert (found["key"], found["tag"], found["user"]) == (["portfolio:7:summary"], ["portfolio:7"], ["portfolio:7"])
    found = await kinds("portfolio")
    assert (found["job"], found["lock"]) == (["warm.portfolios"], ["portfolio:import"])
    assert SUMMARY in found["view"]
    assert (await kinds("trade-1"))["event"] == ["trade-1"]
    assert (await kinds(letter.letter_id))["letter"] == [letter.letter_id]
    assert await kinds("") == {}
    for odd in ("\x00", "{", "*", "a" * 3000, "😀", "[", "<b>", "k:\n"):
        assert set(await kinds(odd)) <= {"tag", "user", "view", "key", "job", "process"}, odd
    await locks.close()


async def test_what_is_gone_or_unknown_is_said(admin: httpx.AsyncClient) -> None:
    """An action on what is not there does nothing, and says so; a tab that is none is 404."""
    assert (await admin.get("/page/api/no-such")).status_code == 404
    assert (await admin.post("/page/api/no/such", json={})).status_code == 404
    said = await admin.post("/page/api/letters/discard", json={"ids": ["1-0"]})
    assert said.json()["done"] == "0 of 1 discarded"
    said = await admin.post("/page/api/browsers/disconnect", json={"user": "nobody"})
    assert said.json()["done"].startswith("0 sockets closed")
    for verb, body in (
        ("jobs/run", {"name": "no.such"}),
        ("jobs/pause", {"name": "", "paused": True}),
        ("users/forget", {"user": ""}),
        ("sessions/end", {"user": ""}),
        ("purge", {"kind": "tag", "name": "a\x00b"}),
        ("letters/edit", {"id": "x" * 3000}),
    ):
        answer = await admin.post(f"/page/api/{verb}", json=body)
        assert answer.status_code == 400, verb
        assert answer.json()["error"]
    headers = {"Content-Type": "application/json"}
    long = await admin.post("/page/api/purge", content=b"{" + b"x" * 2_000_000, headers=headers)
    assert long.status_code == 413
