"""The live page in a real browser: what people see, press and are asked. Screenshots go to `.data/screenshots/`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from cachebus import Cache, CacheSettings
from cachebus.audit import Audit
from cachebus.deadletters import DeadLetters
from cachebus.private_server import PrivateServer
from gateway.page import one_use_code
from tests.gateway.page_site import COOKIE, Site, site
from tests.waiting import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / ".data" / "screenshots"
SUMMARY = "portfolio:{user_id}:summary"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on this machine; CI has one and needs it"
)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium, this machine's own."""
    assert CHROMIUM is not None, "CI must install Chromium"
    async with async_playwright() as play:
        running = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        await running.close()


@pytest.fixture
async def shop(cache: Cache) -> AsyncIterator[Site]:
    """A deployment in which something has happened."""
    async with site(cache) as running:
        for user in (1, 1, 7, 7, 12):
            await cache.views[SUMMARY](user)
            await cache.views["market:{symbol}:quote"]("AAPL")
        await flush(cache)
        yield running


async def flush(cache: Cache) -> None:
    """Have a process say at once what it counted."""
    assert cache._running is not None
    assert cache._running.reporter is not None
    await cache._running.reporter.flush()


async def opened(browser: Browser, shop: Site, path: str = "/", *, admin: bool = False, **options: object) -> Page:
    """Open the page; everything it complains about fails the test."""
    context = await browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **options})  # type: ignore[arg-type] # playwright's own names
    if admin:
        await context.add_cookies([{"name": COOKIE, "value": (await shop.admin())[COOKIE], "url": shop.url}])
    page = await context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"the page raised {error}"))
    await page.goto(shop.url + path)
    await expect(page.locator("#pulse")).to_have_text("live")
    return page


async def fail_mails(shop: Site, *people: str) -> None:
    """Publish what cannot be handled, and wait until it is a dead letter each."""
    for person in people:
        await shop.bus.publish("mail:requested", {"to": person})

    async def dead() -> bool:
        return await DeadLetters(shop.cache.link).count() == len(people)

    await until(dead, "the dead letters")


async def test_a_dead_letter_is_retried_from_the_page(browser: Browser, shop: Site) -> None:
    """Open it, read why, press Retry: its handler runs once more, the list is empty, the log has a line."""
    await fail_mails(shop, "ada@example.com")
    page = await opened(browser, shop, admin=True)
    letters = page.locator("#letters")
    await letters.locator("summary").click()
    await expect(letters).to_contain_text("smtp.example.com refuses ada@example.com")
    shop.mended.set()
    await letters.get_by_role("button", name="Retry").click()
    await expect(letters).to_contain_text("None: every event was handled")
    await until(lambda: shop.consumer.stats.retries == 1, "the retry")
    await expect(page.locator("#audit")).to_contain_text("letters/retry")
    await page.context.close()


async def test_discarding_asks_first(browser: Browser, shop: Site) -> None:
    """Cancel keeps the letter; Discard throws it away."""
    await fail_mails(shop, "ada@example.com")
    page = await opened(browser, shop, admin=True)
    await page.locator("#letters summary").click()
    for answer, left in (("Cancel", 1), ("Discard", 0)):
        await page.locator("#letters").get_by_role("button", name="Discard").click()
        await page.get_by_role("dialog").get_by_role("button", name=answer).click()
        await expect(page.locator("#letters summary")).to_have_count(left)
    assert await DeadLetters(shop.cache.link).count() == 0
    await page.context.close()


async def test_a_purge_shows_its_reach_and_asks(browser: Browser, shop: Site) -> None:
    """Count, look, confirm: user 1's value is invalid then, user 12's is not."""
    page = await opened(browser, shop, admin=True)
    form = page.locator("[data-form=reach]")
    await form.locator("select").select_option("user")
    await form.locator("input").fill("1")
    await form.get_by_role("button", name="Count").click()
    await expect(page.locator("#reached")).to_contain_text("1 stored entry")
    assert await Audit(shop.cache.link).newest() == []
    await page.get_by_role("button", name="Purge user 1").click()
    await page.get_by_role("dialog").get_by_role("button", name="Purge").click()
    await expect(page.locator("#reached")).to_contain_text("Purged user 1.")
    for key, word in (("portfolio:1:summary", "is not served"), ("portfolio:12:summary", "valid")):
        await page.locator("[data-form=inspect] input").fill(key)
        await page.locator("[data-form=inspect] button").click()
        await expect(page.locator("#inspected .chip").first).to_contain_text(word)
    (record,) = await Audit(shop.cache.link).newest()
    assert json.loads(record.target) == {"kind": "user", "name": "1"}
    await page.context.close()


async def test_without_a_session_the_page_only_shows(browser: Browser, shop: Site) -> None:
    """No button that acts can be pressed, and the page says how to get one that can."""
    await fail_mails(shop, "ada@example.com")
    page = await opened(browser, shop, "/?kind=tag&name=user:1")
    await expect(page.locator("#me")).to_have_text("read only")
    await page.locator("#letters summary").click()
    await expect(page.locator("#letters")).to_contain_text("sign in as an admin")
    await expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    await expect(page.get_by_role("button", name="Purge tag user:1")).to_be_disabled()
    await expect(page.get_by_role("button", name="Run now")).to_have_count(0)
    await page.context.close()


async def test_strangers_are_told_how_to_sign_in(browser: Browser, shop: Site) -> None:
    """Through a proxy, without a session: no figure, one sentence, and where the link comes from."""
    context = await browser.new_context(extra_http_headers={"Via": "1.1 proxy"})
    page = await context.new_page()
    await page.goto(shop.url)
    await expect(page.locator("#state h1")).to_have_text("Sign in to see this page.")
    await expect(page.locator("#state")).to_contain_text(f"python -m gateway.page {shop.url}")
    await expect(page.locator("#views-table tbody tr")).to_have_count(0)
    await context.close()


async def test_the_printed_link_signs_in_and_leaves_no_code_behind(browser: Browser, shop: Site) -> None:
    """The code goes from the address bar into a session."""
    code = await one_use_code(shop.cache.link, "grace")
    page = await opened(browser, shop, f"/#enter={code}")
    await expect(page.locator("#me")).to_have_text("grace · admin")
    assert code not in page.url
    await page.context.close()


async def test_filters_stand_in_the_address_and_come_back_from_it(browser: Browser, shop: Site) -> None:
    """What is filtered, sorted and chosen can be sent to a colleague as a link."""
    page = await opened(browser, shop)
    rows = page.locator("#views-table tbody tr")
    await expect(rows).to_have_count(4)
    await page.keyboard.press("/")
    await page.keyboard.type("market")
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name="24 h").click()
    await page.get_by_role("button", name="Requests").click()
    await page.locator("input[name=live]").fill("price")
    wanted = {"view": ["market"], "window": ["24h"], "sort": ["-requests"], "live": ["price"]}
    await until(lambda: parse_qs(urlsplit(page.url).query) == wanted, "the address with all filters")
    await page.reload()
    await expect(rows).to_have_count(1)
    await expect(page.locator("input[name=view]")).to_have_value("market")
    await expect(page.get_by_role("button", name="24 h")).to_have_attribute("aria-pressed", "true")
    await page.context.close()


async def test_events_arrive_while_one_watches(browser: Browser, shop: Site) -> None:
    """Without a reload: the event, the tag it made invalid, the topic it was told to."""
    page = await opened(browser, shop)
    await shop.bus.publish("trade:created", {"user_id": 7}, key="user-7")
    line = page.locator("#tail li").first
    for text in ("trade:created · user-7", "user:7", "1 socket"):
        await expect(line).to_contain_text(text)
    await page.context.close()


async def test_what_an_event_says_is_never_markup(browser: Browser, shop: Site) -> None:
    """Names and payloads come from strangers: they are shown as they are written, and run nothing."""
    evil = "<img src=x onerror=document.title='owned'>"
    await fail_mails(shop, evil)
    await shop.cache.invalidate(tags=[evil])
    page = await opened(browser, shop, f"/?view={evil}")
    await expect(page.locator("#tail")).to_contain_text(evil)
    await expect(page.locator("#letters .why")).to_contain_text(evil)
    await expect(page.locator("#views-table")).to_contain_text(evil)
    assert await page.locator("main img").count() == 0
    await page.context.close()


async def test_an_outage_is_red_and_the_last_figures_stay(browser: Browser, own_server: PrivateServer) -> None:
    """Whoever looks while Redis dies sees that at once, keeps what was known, and sees green again when it is back."""
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache, site(cache) as shop:
        page = await opened(browser, shop)
        rows = page.locator("#schedules tbody tr")
        await expect(page.locator("#state")).to_have_class("state ok")
        await expect(rows).to_have_count(2)
        own_server.kill()
        await expect(page.locator("#state")).to_have_class("state bad")
        await expect(page.locator("#state h1")).to_contain_text("Redis does not answer")
        await expect(page.locator("#redis")).to_contain_text("breaker is open")
        await expect(rows).to_have_count(2)
        own_server.restart()
        await expect(page.locator("#state")).to_have_class("state ok", timeout=20_000)
        await shop.bus.publish("trade:created", {"user_id": 7}, key="after")
        await expect(page.locator("#tail")).to_contain_text("trade:created · after", timeout=20_000)
        await page.context.close()


async def test_an_open_letter_stays_open_while_others_come_and_go(browser: Browser, shop: Site) -> None:
    """Whoever reads is not interrupted by what is new, nor by what somebody else clears away."""
    await fail_mails(shop, "ada@example.com")
    page = await opened(browser, shop)
    await page.locator("#letters summary").click()
    await shop.bus.publish("mail:requested", {"to": "grace@example.com"})
    await expect(page.locator("#letters details")).to_have_count(2)
    await expect(page.locator("#letters details").nth(1)).to_have_attribute("open", "")
    await expect(page.locator("#letters details").nth(0)).not_to_have_attribute("open", "")
    letters = DeadLetters(shop.cache.link)
    await letters.purge([(await letters.newest())[0].letter_id])
    await expect(page.locator("#letters details")).to_have_count(1)
    await expect(page.locator("#letters details")).to_have_attribute("open", "")
    await page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
async def test_it_fits_and_is_kept_as_a_picture(browser: Browser, shop: Site, width: int, scheme: str) -> None:
    """Nothing sticks out at the side, every control has a name, and each panel is there, at both sizes and schemes."""
    await fail_mails(shop, "ada@example.com", "grace@example.com")
    await shop.scheduler.run_now("report.daily")
    for user in range(1, 9):
        await shop.bus.publish("trade:created", {"user_id": user}, key=f"user-{user}")
    await until(lambda: shop.consumer.stats.events == 10, "all events to be handled")
    await flush(shop.cache)
    page = await opened(
        browser,
        shop,
        "/?key=portfolio:7:summary&kind=user&name=7",
        admin=True,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
    )
    await expect(page.locator("#tail li").first).to_be_visible()
    await expect(page.locator("#inspected pre")).to_be_visible()
    await expect(page.locator("#schedules")).to_contain_text("no template for the daily report")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    nameless = "[...document.querySelectorAll('main :is(button, input, select)')]"
    nameless += ".filter(control => !(control.textContent || control.ariaLabel)).length"
    assert await page.evaluate(nameless) == 0
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"page-{width}-{scheme}.png", full_page=True)
    await page.context.close()
