"""Thirteen questions of an operator, answered by the page: in at most four clicks each, the seconds printed."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, expect

from cachebus.bus.dead_letters import DeadLetters
from cachebus.cache.upkeep.reporter import releases_key
from cachebus.locks.locks import Locks
from cachebus.monitoring.sockets import OpenSocket, SocketsTold, tell_sockets
from cachebus.monitoring.verdict.chronicle import Chronicle
from cachebus.monitoring.verdict.servers import ServerFacts
from cachebus.schedules.store import record_key
from tests.support.browsing import needs_chromium, opened
from tests.support.page_site import SUMMARY, Site, fail_mails, flushed
from tests.support.waiting import until

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("page")]

MOST_CLICKS = 4
GIB = 2**30


@asynccontextmanager
async def task(page: Page, question: str, *, most: int = MOST_CLICKS) -> AsyncIterator[None]:
    """Begin on *Now*; at the end say how long it took, and assert that it took few clicks."""
    await page.evaluate("location.hash = '#/now'; window.clicks = 0")
    await expect(page.locator("main[data-at='#/now']")).to_be_visible()
    began = time.perf_counter()
    yield
    clicks = await page.evaluate("window.clicks")
    sys.stdout.write(f"{question}: {clicks} clicks, {time.perf_counter() - began:.1f} s\n")
    assert clicks <= most, question


async def tab(page: Page, name: str) -> None:
    """Press a tab."""
    await page.get_by_role("navigation").get_by_role("link", name=name).click()


async def found(page: Page, text: str, kind: str = "") -> None:
    """Ask Ctrl-K for something, and open it with the keyboard."""
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox")).to_be_focused()
    await page.keyboard.type(text)
    options = page.get_by_role("option")
    await expect(options.filter(has_text=text).first).to_be_visible()
    if kind:
        wanted = options.filter(has=page.locator("small", has_text=kind)).filter(has_text=text)
        await wanted.first.click()
    else:
        await page.keyboard.press("Enter")


async def test_an_operator_looks(  # noqa: PLR0915 - one deployment for all that only looks
    chrome: Browser, busy: Site
) -> None:
    """Nine questions that looking answers."""
    client = busy.cache.client
    await fail_mails(busy, "ada@example.com")
    await busy.bus.publish("trade:created", {"user_id": 7}, key="user-7", id="trade-7")
    await until(lambda: busy.consumer.stats.events == 2, "the trade to be handled")
    locks = Locks(client, owner="importer on web-3")
    await locks.lock("import:prices", "30s", renew=False).acquire()
    long_ago = client.now_us() - 3 * 3_600_000_000
    await client.store.call("HSET", record_key(client, "warm.portfolios"), "last_fire", long_ago)
    for back in reversed(range(8)):
        facts = ServerFacts("Redis", up=True, memory=2 * GIB - back * GIB // 10, memory_limit=4 * GIB)
        await Chronicle(client).note_sample(client.now_us() / 1000 - back * 60_000, [facts])
    one = OpenSocket("7", ["market:AAPL", "user:7"], 0, 2, "17-1", client.now_us() // 1000)
    telling = asyncio.create_task(tell_sockets(client, lambda _: SocketsTold("web-1.17", 1, [one])))
    await flushed(busy.cache)
    page = await opened(chrome, busy, admin=True)
    main = page.locator("main")
    try:
        async with task(page, "is it healthy, why not, since when", most=0):
            await expect(page.locator("h1")).to_contain_text("1 dead letter, the newest within the hour")
            await expect(page.locator(".verdict .since")).to_contain_text("since ")
            await expect(page.locator(".verdict li").first).to_contain_text("since ")
        async with task(page, "was event to fresh within its target over the last hour", most=0):
            await expect(page.locator(".tile", has_text="Fresh within 1 s")).to_contain_text("of 2 events, 1 h")
            share = re.compile(r"(0|50|100) %")  # of two events, as quick as this machine was
            await expect(page.locator(".tile", has_text="Fresh within")).to_contain_text(share)
        async with task(page, "is Redis near its limit"):
            await expect(page.locator(".tile", has_text="Redis memory")).to_contain_text("no limit is set (maxmemory)")
            await page.get_by_role("link", name="Redis memory").first.click()
            await expect(main.get_by_role("img", name="Memory of Redis")).to_be_visible()
        async with task(page, "a late job"):
            await tab(page, "Jobs")
            await expect(main.locator("tbody tr").first).to_contain_text("warm.portfolios")
            await expect(main.locator("tbody tr").first).to_contain_text("late due ")
        async with task(page, "who holds lock Y"):
            await found(page, "import:prices")
            await expect(main.locator("tbody tr").first).to_contain_text("importer on web-3")
        async with task(page, "who is connected to what"):
            await tab(page, "Browsers")
            await expect(main.locator("tbody tr").first).to_contain_text("market:AAPL")
            await expect(main.locator("tbody tr").first).to_contain_text("web-1.17")
        async with task(page, "one event's life"):
            await found(page, "trade-7")
            for step in ("waited shard 0", "handled tests.support.page_site.traded", "told user:7"):
                await expect(main.locator(".fall")).to_contain_text(step)
            await expect(main).to_contain_text("fresh after")
            await expect(main.locator(".fall")).to_contain_text("web-1.17 1")
        async with task(page, "what key X holds, and who made it old"):
            await found(page, "portfolio:7:summary")
            await expect(main.locator("pre")).to_contain_text('"value": 7000.0')
            await expect(main).to_contain_text("event tests.support.page_site.traded trade-7")
        async with task(page, "two views compared"):
            await tab(page, "Views")
            await page.get_by_role("link", name="Compare two").click()
            await expect(main.locator("tbody tr").first).to_contain_text("reads55")
            await expect(main.locator("canvas")).to_have_count(4)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await locks.close()


async def test_why_a_ratio_fell(chrome: Browser, busy: Site) -> None:
    """After a release a view's values are invalidated with each read: the release is marked where its hits end."""
    client, names = busy.cache.client, busy.cache.client.names
    minute = client.now_us() // 60_000_000 * 60
    for back in range(1, 40):
        bad = back < 20
        counted = {"l1_hits": 10 if bad else 95, "loads": 90 if bad else 5, "load_ms": 900 if bad else 50}
        counted |= {"invalidations": 90, "invalidated by event": 90} if bad else {}
        fields = [part for name, number in counted.items() for part in (f"{SUMMARY}|{name}", number)]
        key = names.bus("history", "minute", str(minute - 60 * back))
        await client.store.call("HSET", key, *fields)
        await client.store.call("EXPIRE", key, 60)
    await client.store.call("ZADD", releases_key(client), (minute - 60 * 20) * 1_000_000, "4d5e6f")
    await client.store.call("EXPIRE", releases_key(client), 60)
    page = await opened(chrome, busy)
    async with task(page, "a view's ratio fell: which release or invalidation"):
        await tab(page, "Views")
        await page.get_by_role("link", name=SUMMARY).click()
        await page.get_by_role("button", name="1 h").click()
        await page.locator(".marks summary").click()
        await expect(page.locator(".marks li")).to_contain_text("release 4d5e6f")
        causes = page.locator("[data-chart=causes]")
        await expect(causes.get_by_role("img", name="Invalidations by kind of cause")).to_be_visible()
        await expect(causes.locator(".legend")).to_contain_text("event")
        await expect(page.locator(".facts").first).to_contain_text("by events")


async def test_a_letter_is_found_corrected_and_retried(chrome: Browser, busy: Site) -> None:
    """Its handler runs on the corrected payload, and the page says that it was handled."""
    await fail_mails(busy, "wrong@example.com")
    page = await opened(chrome, busy, admin=True)
    async with task(page, "find, edit, retry a letter"):
        await tab(page, "Failures")
        await page.locator("#letters summary").first.click()
        await expect(page.locator("#letters pre").first).to_contain_text("wrong@example.com")
        await page.get_by_role("button", name="Edit and retry").click()
        await page.locator("textarea").fill('{"to": "right@example.com"}')
        busy.mended.set()
        await page.get_by_role("button", name="Retry with this payload").click()
        await expect(page.locator("#toast")).to_have_text("put back with the new payload: 1 handled")
        await expect(page.locator("main")).to_contain_text("None: every event was handled.")
    sent = await busy.cache.client.store.call("XREVRANGE", busy.cache.client.names.feed, "+", "-", "COUNT", 1)
    assert b"right@example.com" in sent[0][1][sent[0][1].index(b"record") + 1]


async def test_five_thousand_letters_of_two_kinds(chrome: Browser, busy: Site) -> None:
    """Two groups; all of one are discarded on the server, those of the other stay."""
    client = busy.cache.client
    name, at_ms = client.names.bus("deadletters"), client.now_us() // 1000
    letter = ("kind", "failed", "channel", "mail:requested", "payload", "{}", "handler", "shop.send", "attempts", 5)
    for first in range(0, 5000, 250):
        whys = {
            n: f"TimeoutError: no answer from {n}" if n % 2 else f"KeyError: {n}" for n in range(first, first + 250)
        }
        calls = [("XADD", name, f"{at_ms + n}-0", *letter, "id", f"m-{n}", "reason", why) for n, why in whys.items()]
        await asyncio.gather(*[client.store.call(*call) for call in calls])
    page = await opened(chrome, busy, admin=True)
    async with task(page, "5,000 letters of two kinds"):
        await tab(page, "Failures")
        await expect(page.locator("main")).to_contain_text("5,000 dead letters in 2 groups")
        row = page.locator("tbody tr", has_text="TimeoutError: no answer from N")
        await expect(row).to_contain_text("2,500")
        await row.get_by_role("button", name="Discard").click()
        await expect(page.get_by_role("dialog")).to_contain_text("Discard 2,500 dead letters?")
        await page.get_by_role("dialog").get_by_role("button", name="Discard").click()
        await expect(page.locator("main")).to_contain_text("2,500 dead letters in 1 group", timeout=15_000)
    assert {letter.reason[:8] for letter in await DeadLetters(client).newest(50)} == {"KeyError"}


async def test_a_user_is_forgotten(chrome: Browser, busy: Site) -> None:
    """What there is, a question, a receipt; nothing of the user is left, and others keep theirs."""
    await busy.sessions.create("7", ip="10.0.0.1")
    page = await opened(chrome, busy, admin=True)
    async with task(page, "forget a user"):
        await found(page, "7", "user")
        await expect(page.locator("#kept")).to_contain_text("cached values 1")
        await page.get_by_role("button", name="Forget").click()
        await page.get_by_role("dialog").get_by_role("button", name="Forget").click()
        await expect(page.locator("#kept")).to_contain_text("Keep this receipt")
        await expect(page.locator("#kept")).to_contain_text("sessions 1")
        await expect(page.locator("main")).to_contain_text("0 entries of")
    assert await busy.sessions.list_user("7") == []
