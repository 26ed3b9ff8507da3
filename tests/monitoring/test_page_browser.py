"""The live page in a real browser: what people see, press and are asked."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import unquote

import pytest
from playwright.async_api import Browser, Page, Route, expect
from starlette.applications import Starlette

from cachebus import Cache, CacheSettings
from cachebus.bus.dead_letters import DeadLetters
from cachebus.cache.stats import CacheStats
from cachebus.cache.upkeep.reporter import Observed, Reporter, releases_key
from cachebus.locks.locks import Locks
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.page import LivePage, one_use_code
from cachebus.monitoring.sockets import OpenSocket, SocketsTold, tell_sockets
from cachebus.testing.server import PrivateServer
from tests.support.browsing import look_again, needs_chromium, opened
from tests.support.page_site import COOKIE, SUMMARY, Site, fail_mails, flushed, served, site
from tests.support.waiting import until

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("page")]


async def test_discarding_asks_first(chrome: Browser, busy: Site) -> None:
    """Cancel keeps the letter; Discard throws it away."""
    await fail_mails(busy, "ada@example.com")
    page = await opened(chrome, busy, "/#/failures", admin=True)
    for answer, left in (("Cancel", 1), ("Discard", 0)):
        await page.locator("tbody").get_by_role("button", name="Discard").click()
        await page.get_by_role("dialog").get_by_role("button", name=answer).click()
        await expect(page.locator("tbody tr")).to_have_count(left)
    assert await DeadLetters(busy.cache.client).count() == 0


async def test_a_lock_is_taken_away_from_the_page(chrome: Browser, busy: Site) -> None:
    """The question names the lock and who may still be at work; then nobody holds it, and the log has a line."""
    locks = Locks(busy.cache.client, owner="importer")
    await locks.lock("import:prices", "30s", renew=False).acquire()
    page = await opened(chrome, busy, "/#/limits", admin=True)
    await page.get_by_role("button", name="Release").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Take lock import:prices away?")
    await expect(dialog).to_contain_text("importer may be at work")
    await dialog.get_by_role("button", name="Release").click()
    await expect(page.locator("main")).to_contain_text("Nobody holds a lock.")
    await page.get_by_role("link", name="Audit").click()
    await expect(page.locator("main")).to_contain_text("locks/unlock")
    await locks.close()


async def test_a_purge_shows_its_reach_and_asks(chrome: Browser, busy: Site) -> None:
    """Look, confirm: user 1's value is invalid then, user 12's is not; the entry says who did it."""
    page = await opened(chrome, busy, "/#/keys?kind=user&name=1", admin=True)
    await expect(page.locator("main")).to_contain_text("1 entry of")
    assert await Audit(busy.cache.client).newest() == []
    await page.get_by_role("button", name="Purge user 1").click()
    await page.get_by_role("dialog").get_by_role("button", name="Purge").click()
    await expect(page.locator("#toast")).to_contain_text("purged at clock")
    (record,) = await Audit(busy.cache.client).newest()
    assert json.loads(record.target) == {"kind": "user", "name": "1"}
    await page.goto(f"{busy.url}/#/keys/portfolio%3A1%3Asummary")
    await expect(page.locator("main")).to_contain_text("is not served")
    await expect(page.locator("main")).to_contain_text("admin ada purge")
    await page.goto(f"{busy.url}/#/keys/portfolio%3A12%3Asummary")
    await expect(page.locator("main")).to_contain_text("✓ valid")


async def test_figures_that_are_no_longer_true_say_of_when_they_are(chrome: Browser, busy: Site) -> None:
    """While the page's server does not answer, the last figures stay, greyed, with their time; never as "live"."""
    page = await opened(chrome, busy, "/#/views")
    await expect(page.locator("main")).to_contain_text(SUMMARY)
    await page.route("**/page/api/views*", lambda route: route.abort())
    await look_again(page)
    await expect(page.locator("#age")).to_have_text(re.compile(r"page unavailable; figures of \d\d:\d\d:\d\d"))
    await expect(page.locator("body.old main")).to_contain_text(SUMMARY)
    await page.unroute("**/page/api/views*")
    await look_again(page)
    await expect(page.locator("#age")).to_have_text("live")


async def test_a_frozen_server_is_never_called_live(chrome: Browser, busy: Site) -> None:
    """No answer and no refusal either: after some seconds the figures say of when they are."""
    page = await opened(chrome, busy, "/#/views")
    await page.clock.install()
    await page.route("**/page/api/views*", lambda _: None)
    await look_again(page)
    await page.clock.fast_forward(20_000)
    await expect(page.locator("#age")).to_have_text(
        re.compile(r"(no answer|page unavailable); figures of \d\d:\d\d:\d\d")
    )
    await expect(page.locator("body.old main")).to_contain_text(SUMMARY)


async def test_over_a_slow_network_one_question_is_asked_at_a_time(chrome: Browser, busy: Site) -> None:
    """The next one when the last is answered, however impatient somebody is; another tab does not wait for it."""
    asked, arrives = 0, asyncio.Event()

    async def slowly(route: Route) -> None:
        nonlocal asked
        asked += 1
        await arrives.wait()
        await route.continue_()

    page = await opened(chrome, busy, "/#/views")
    await page.route("**/page/api/views*", slowly)
    for _ in range(3):
        await look_again(page)
    await until(lambda: asked, "the question")
    await page.get_by_role("navigation").get_by_role("link", name="Jobs").click()
    await expect(page.locator("tbody")).to_contain_text("report.daily")
    await expect(page.locator("#age")).to_have_text("live")
    assert asked == 1
    arrives.set()


async def test_only_what_changed_is_touched(chrome: Browser, busy: Site) -> None:
    """A figure that changes is one text; rows, focus and everything else stay the nodes they were."""
    page = await opened(chrome, busy, "/#/views")
    await page.evaluate("""
        window.touched = [];
        new MutationObserver((all) => window.touched.push(...all.map(({ type, target }) =>
          `${type} ${target.parentElement?.closest("td")?.dataset.label ?? target.nodeName}`)))
          .observe(document.getElementById("main"), { subtree: true, childList: true, characterData: true });
    """)
    await busy.cache.views["market:{symbol}:quote"]("AAPL")
    await flushed(busy.cache)
    await until(lambda: _was_read(page), "the read on the page")
    touched = set(await page.evaluate("window.touched"))
    assert touched
    assert {each for each in touched if each.startswith("childList")} <= {"childList MAIN", "childList title"}
    assert touched <= {
        f"characterData {label}" for label in ("Reads", "Hits", "Answered by", "Hit ratio", "Load", "Cost")
    } | {"characterData #text"}


async def _was_read(page: Page) -> bool:
    await look_again(page)
    return await page.locator("tr", has_text="market:").locator("td").nth(1).inner_text() == "6"


async def test_without_a_session_the_page_only_shows(chrome: Browser, busy: Site) -> None:
    """No button that acts is there, and the page says how to get one that can."""
    await fail_mails(busy, "ada@example.com")
    page = await opened(chrome, busy, "/#/failures")
    await expect(page.locator("#me")).to_have_text("read only")
    await expect(page.locator("main")).to_contain_text("Sign in as an admin to retry")
    for tab in ("failures", "jobs", "limits", "keys?kind=tag&name=user:1"):
        await page.goto(f"{busy.url}/#/{tab}")
        await expect(page.locator("main h1")).to_be_visible()
        await expect(
            page.locator("main").get_by_role("button", name=re.compile("Retry|Discard|Run|Pause|Purge"))
        ).to_have_count(0)


async def test_strangers_are_told_how_to_sign_in(chrome: Browser, busy: Site) -> None:
    """Without a session: no figure, one sentence, and where the link comes from; the link signs in."""
    page_of = LivePage(busy.cache, sessions=busy.sessions, cookie=COOKIE)
    async with served(Starlette(routes=page_of.routes())) as url:
        context = await chrome.new_context()
        page = await context.new_page()
        await page.goto(url)
        await expect(page.locator("h1")).to_have_text("Sign in to see this page.")
        await expect(page.locator("main")).to_contain_text(f"cachebus page-link {url}")
        await expect(page.locator("tbody tr")).to_have_count(0)
        code = await one_use_code(busy.cache.client, "grace")
        await page.goto(f"{url}/?link#enter={code}")
        await expect(page.locator("#me")).to_have_text("grace · admin")
        assert code not in page.url


async def test_a_job_is_paused_until_a_moment(chrome: Browser, busy: Site) -> None:
    """On its own page: what has passed is refused where it is typed, and the moment is shown."""
    page = await opened(chrome, busy, "/#/jobs/warm.portfolios", admin=True)
    until = page.get_by_label("Pause until")
    await until.fill("2020-01-01T10:00")
    await page.locator("form[data-form=until] button").click()
    await expect(page.get_by_text("Choose a moment to come.")).to_be_visible()
    ahead = "new Date(Date.now() + 26 * 3600e3 - new Date().getTimezoneOffset() * 60e3).toISOString().slice(0, 16)"
    await until.fill(await page.evaluate(ahead))
    await page.locator("form[data-form=until] button").click()
    await expect(page.locator("main")).to_contain_text("until 20")
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    await expect(until).to_have_count(0)


async def test_filters_stand_in_the_address_and_come_back_from_it(chrome: Browser, busy: Site) -> None:
    """What is filtered, sorted and chosen can be sent to a colleague as a link; back goes back."""
    page = await opened(chrome, busy, "/#/views")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(4)
    await page.get_by_label("filter views").fill("market")
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name="24 h").click()
    await page.get_by_role("button", name="Reads").click()
    await expect(page.get_by_role("columnheader", name="Reads")).to_have_attribute("aria-sort", "descending")
    assert unquote(page.url).endswith("#/views?q=market&window=24h&sort=-requests")
    await page.reload()
    await expect(rows).to_have_count(1)
    await expect(page.get_by_label("filter views")).to_have_value("market")
    await expect(page.get_by_role("button", name="24 h")).to_have_attribute("aria-pressed", "true")
    await rows.get_by_role("link").click()
    await expect(page.locator("h1")).to_have_text("market:{symbol}:quote")
    await page.go_back()
    await expect(page.get_by_label("filter views")).to_have_value("market")


async def test_a_window_is_chosen_by_dragging_and_read_with_arrow_keys(chrome: Browser, busy: Site) -> None:
    """Dragged on one chart it is the window of all figures, in the address; ✕ ends it. Keys read step by step."""
    page = await opened(chrome, busy)
    fresh, reads = page.locator("[data-chart=fresh] .u-over"), page.locator("[data-chart=reads]")
    box = await fresh.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=4)
    await page.mouse.up()
    await expect(page.get_by_role("button", name="✕")).to_be_visible()
    assert re.search(r"#/now\?from=\d+&until=\d+$", page.url)
    tile = page.locator(".tile", has_text="Users' hits")
    await expect(tile).to_contain_text(re.compile(r"of 0 reads, \d\d:\d\d . \d\d:\d\d"))
    await page.get_by_role("button", name="✕").click()
    await expect(tile).to_contain_text("of 10 reads, 1 h")
    await reads.get_by_role("img").focus()
    await page.keyboard.press("End")
    await expect(reads.locator(".legend")).to_have_attribute("aria-live", "polite")
    last = await reads.locator(".legend .at").inner_text()
    await page.keyboard.press("ArrowLeft")
    await expect(reads.locator(".legend .at")).not_to_have_text(last)
    await page.keyboard.press("Home")  # an hour ago nobody read; the newest minutes depend on when this runs
    await expect(reads.locator(".legend")).to_contain_text("memory 0")
    await reads.locator(".figures summary").click()
    await expect(reads.locator("tbody tr")).to_have_count(60)


async def test_events_arrive_while_one_watches(chrome: Browser, busy: Site) -> None:
    """Without a reload: the event, the tag it made invalid, the topic it was told to."""
    page = await opened(chrome, busy, "/#/events")
    await busy.bus.publish("trade:created", {"user_id": 7}, key="user-7")
    line = page.locator("#tail li").first
    for text in ("trade:created · user-7", "user:7", "1 socket"):
        await expect(line).to_contain_text(text)


async def test_who_presses_ctrl_k_types_on_at_once(chrome: Browser, busy: Site) -> None:
    """Not a letter is lost, however slowly the script of the search comes."""
    page = await opened(chrome, busy)

    async def slowly(route: Route) -> None:
        await asyncio.sleep(1.0)
        await route.continue_()

    await page.route("**/search.js", slowly)
    await page.reload()
    await expect(page.locator("#age")).to_have_text("live")
    await page.keyboard.press("Control+k")
    await page.keyboard.type("market:")
    await expect(page.get_by_role("combobox", name="Find anything")).to_have_value("market:")


EVIL = "<img src=x onerror=document.title='owned'>\u202e\x07" + "x" * 3000


async def test_what_an_event_says_is_never_markup(chrome: Browser, busy: Site) -> None:
    """Names and payloads come from strangers: they are shown as they are written, and run nothing, on any tab."""
    await fail_mails(busy, EVIL)
    named = EVIL.replace("\x07", "")
    await busy.cache.set(f"draft:{named}", {"text": EVIL})
    await busy.cache.invalidate(tags=[named])
    locks = Locks(busy.cache.client, owner=EVIL[:100])
    await locks.lock(f"{EVIL[:60]}", "30s", renew=False).acquire()
    await Audit(busy.cache.client).note(EVIL[:100], EVIL[:100], EVIL)
    page = await opened(chrome, busy, admin=True, viewport={"width": 360, "height": 800})
    name = "%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D'owned'%3E%E2%80%AE"
    tabs = ("events", "failures", f"failures?q={name}", "limits", "audit", f"views?q={name}", f"views/{name}")
    for tab in (
        *tabs,
        f"events/{name}",
        f"keys/draft:{name}",
        f"keys?kind=tag&name={name}",
        f"jobs/{name}",
        f"browsers?user={name}",
    ):
        await page.goto(f"{busy.url}/#/{tab}")
        await expect(page.locator("main > *").first).to_be_visible()
        await expect(page.locator(".waits")).to_have_count(0)
        assert await page.locator("main img").count() == 0
        assert "owned" not in (await page.title()).replace("title='owned'", "")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, tab
        assert "\u202e" not in await page.locator("main").inner_text()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("<img src=x onerror=1>")
    await expect(page.locator("#found")).to_contain_text("<img src=x onerror=1>")
    assert await page.locator("dialog img").count() == 0
    await locks.close()


async def test_an_outage_is_red_and_the_last_figures_stay(chrome: Browser, own_server: PrivateServer) -> None:
    """Whoever looks while Redis dies sees that at once, keeps what was known, and sees green again when it is back."""
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache, site(cache) as shop:
        page = await opened(chrome, shop, "/#/jobs")
        rows = page.locator("tbody tr")
        await expect(page.locator("#state")).to_have_class("state ok")
        await expect(rows).to_have_count(2)
        own_server.kill()
        await expect(page.locator("#state")).to_have_class("state bad")
        await expect(page.locator("#age")).to_contain_text("Redis unavailable; figures of")
        await expect(rows).to_have_count(2)
        await page.goto(f"{shop.url}/#/now")
        await expect(page.locator("h1")).to_contain_text("Redis does not answer")
        for tab in ("views", "jobs", "failures", "limits", "events", "keys?kind=tag&name=a", "machine", "audit"):
            await page.goto(f"{shop.url}/#/{tab}")  # what nobody knew before is unknown now, and not "0" or "nobody"
            await expect(page.locator("main")).to_contain_text(re.compile("unavailable|does not answer"))
            await expect(page.locator("#state")).to_have_class("state bad")
            await expect(page.locator("tbody tr")).to_have_count(0)
        own_server.restart()
        await expect(page.locator("#state")).to_have_class("state ok", timeout=20_000)
        await expect(page.locator("#age")).to_have_text("live", timeout=20_000)


async def test_an_open_letter_stays_open_while_others_come_and_go(chrome: Browser, busy: Site) -> None:
    """Whoever reads or writes is not interrupted by what is new, nor by what somebody else clears away."""
    await fail_mails(busy, "ada@example.com")
    page = await opened(chrome, busy, "/#/failures", admin=True)
    letters = page.locator("#letters > details")
    await letters.locator("summary").first.click()
    await letters.get_by_role("button", name="Edit and retry").click()
    await letters.locator("textarea").fill('{"to": "half written')
    await fail_mails(busy, "grace@example.com")
    await look_again(page)
    await expect(letters).to_have_count(2)
    await expect(letters.nth(1).locator("textarea")).to_have_value('{"to": "half written')
    await expect(letters.nth(0)).not_to_have_attribute("open", "")
    found = DeadLetters(busy.cache.client)
    await found.purge([(await found.newest())[0].letter_id])
    await look_again(page)
    await expect(letters).to_have_count(1)
    await expect(letters.locator("textarea")).to_have_value('{"to": "half written')


async def test_a_release_is_a_mark_and_the_environment_has_a_name(
    chrome: Browser, busy: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which release, when, in words too; one that is older than the charts is no mark of theirs."""
    monkeypatch.setenv("RAILWAY_ENVIRONMENT_NAME", "staging")
    client = busy.cache.client
    for name, minutes in (("4d5e<b>", 10), ("0a1b", 120)):
        await client.store.call("ZADD", releases_key(client), client.now_us() - minutes * 60_000_000, name)
    await client.store.call("EXPIRE", releases_key(client), 60)
    page = await opened(chrome, busy, timezone_id="Pacific/Auckland")
    await expect(page.locator("#about")).to_contain_text("Pacific/Auckland")
    await expect(page.locator(".marks summary")).to_have_text("1 mark on the axis")
    await page.locator(".marks summary").click()
    await expect(page.locator(".marks li")).to_contain_text("▼ deploy release 4d5e<b>")
    await expect(page.locator("#where")).to_contain_text(f"staging {client.names.namespace}")
    await expect(page.locator("#about")).to_contain_text("release 4d5e<b> since")
    await expect(page.locator("canvas")).to_have_count(3)


async def test_the_breaker_is_that_of_the_processes(chrome: Browser, busy: Site) -> None:
    """What each says of its own reads, with the server's reason; a page that reads is no proof for others."""
    refused = CacheStats({}, refused="NOPERM no permissions to run <b>'evalsha'")
    other = Observed()
    other.gauges["sockets"] = lambda: 0.0
    await Reporter(busy.cache.client, lambda: refused, other, name="web-2.9").flush()
    page = await opened(chrome, busy, "/#/machine")
    await expect(page.locator("tr", has_text="web-2.9")).to_contain_text("Redis refuses its reads")
    await expect(page.locator("tr", has_text="web-2.9").locator(".chip.bad")).to_have_attribute(
        "title", refused.refused
    )
    await page.goto(f"{busy.url}/#/now")
    await expect(page.locator("main")).to_contain_text("Redis refuses reads, everything is loaded")


async def test_open_sockets_are_asked_for_and_closed(chrome: Browser, busy: Site) -> None:
    """Nobody's while no gateway is at work; then each with its user, topics and gateway; Disconnect closes them."""
    page = await opened(chrome, busy, "/#/browsers", admin=True)
    await expect(page.locator("main")).to_contain_text("No socket is open.")
    one = OpenSocket("<b>7", ["market:A", "user:7"], 3, 2, "17-1", busy.cache.client.now_us() // 1000)
    closed: list[str] = []
    answer = SocketsTold("web-1.17", 1, [one])
    telling = asyncio.create_task(tell_sockets(busy.cache.client, lambda _: answer, closed.append))
    try:
        await until(lambda: _is_heard(busy), "the gateway to listen")
        await look_again(page)
        row = page.locator("main table").first.locator("tbody tr")
        await expect(row).to_contain_text("<b>7")
        for text in ("market:A", "user:7", "+3 more", "web-1.17", "17-1"):
            await expect(row).to_contain_text(text)
        await row.get_by_role("button", name="Disconnect").click()
        await page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
        await expect(page.locator("#toast")).to_contain_text("1 socket closed")
        assert closed == ["<b>7"]
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _is_heard(shop: Site) -> bool:
    """Whether a gateway listens for questions about sockets."""
    client = shop.cache.client
    heard: list[object] = await client.store.call("PUBSUB", "NUMSUB", client.names.bus("sockets"))
    return bool(heard[1])
