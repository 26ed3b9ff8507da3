"""Redis dies under open pages: they say so, keep what was known, and lack nothing once it is back."""

from __future__ import annotations

import asyncio

from playwright.async_api import Browser, Page, expect

from cachebus import Cache, CacheSettings
from cachebus.testing.server import PrivateServer
from tests.support.browsing import no_complaints, opened
from tests.support.page_site import Site, flushed, site
from tests.support.tradesense_site import PATIENCE_MS, USER, Deployment, heard, in_a_browser, shown
from tests.support.waiting import until

pytestmark = in_a_browser

WAKE = "dispatchEvent(new Event('online'))"
"""What a browser says when its machine wakes up: the page connects anew, at once."""


async def events(page: Page) -> list[str]:
    """Return the keys of the events in the page's tail, sorted."""
    chips = await page.locator("#tail .event").all_inner_texts()
    return sorted(chip.rpartition(" · ")[2] for chip in chips)


async def publish(shop: Site, *keys: str) -> None:
    """Publish one event of each key; an outage is waited out."""
    for user, key in enumerate(keys):
        await shop.bus.publish("trade:created", {"user_id": user}, key=key, id=key, timeout="60s")


async def test_the_live_page_is_stale_and_says_so_until_redis_is_back(
    chrome: Browser, own_server: PrivateServer
) -> None:
    """Away: no green, what was known stays. Back, one more event: every event once, and the figures count them all."""
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache, site(cache) as shop:
        page = await opened(chrome, shop, "/#/events")
        age = page.locator("#age")
        await publish(shop, "a", "b", "c")

        async def shown_before() -> bool:
            return await events(page) == ["a", "b", "c"]

        await until(shown_before, "three events in the tail")
        own_server.kill()
        await expect(age).to_contain_text("Redis unavailable; figures of", timeout=PATIENCE_MS)
        await expect(page.locator("#state")).to_have_class("state bad")
        await expect(page).to_have_title("✕ Events · cachebus")
        late = asyncio.create_task(publish(shop, "while-away"))
        assert await events(page) == ["a", "b", "c"]

        own_server.restart()
        await expect(age).to_have_text("live", timeout=PATIENCE_MS)
        await late
        await publish(shop, "z-after")
        await until(lambda: shop.consumer.stats.events == 5, "all five events")

        async def all_shown() -> bool:
            return await events(page) == ["a", "b", "c", "while-away", "z-after"]

        await until(all_shown, "every event in the tail, once")
        await flushed(cache)
        await page.get_by_role("link", name="Now", exact=True).click()
        await expect(page.locator(".tile").first).to_contain_text("of 5 events, 1 h", timeout=PATIENCE_MS)
        await expect(page.locator("#state")).not_to_have_class("state bad")
        await page.context.close()
    no_complaints()


async def bought(made: Deployment) -> None:
    """Record a trade with its event, as an application does whatever has become of Redis."""
    trade = f"record_trade({USER}, 'AAPL', 'buy', 1, '10.00', announce=True)"
    code = f"import asyncio; from tradesense.recording import record_trade; asyncio.run({trade})"
    assert await (await made.start("-c", code)).wait() == 0


async def test_a_trade_that_was_made_while_redis_was_away_shows_when_it_is_back(
    chrome: Browser, made: Deployment
) -> None:
    """The page waits for the gateway, the trade in the outbox; then it shows, and every message came once."""
    async with shown(chrome, f"{made.app_url}/#user={USER}") as page:
        trades = page.locator("#trade-count")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-value") or 0)
        earlier = len(made.told())
        await bought(made)
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)

        made.server.kill()
        await page.evaluate(WAKE)
        await expect(page.locator("#state")).to_have_attribute("data-state", "waiting", timeout=PATIENCE_MS)
        await bought(made)
        await expect(trades).to_have_text(f"{count + 1} trades")
        await page.route("**/api/ticket", lambda route: route.abort())  # until the message has gone by
        made.server.restart()
        await until(lambda: len(made.told()) == earlier + 2, "the message of the trade")
        await page.unroute("**/api/ticket")
        await page.evaluate(WAKE)
        await expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
        await expect(trades).to_have_text(f"{count + 2} trades", timeout=PATIENCE_MS)
        await bought(made)
        await expect(trades).to_have_text(f"{count + 3} trades", timeout=PATIENCE_MS)

        async def all_heard() -> bool:
            return len(made.told()) == earlier + 3 and await heard(page) == made.told()[earlier:]

        await until(all_heard, "every message, once, in order")


async def test_a_page_says_that_its_gateway_is_cut_off(chrome: Browser, made: Deployment) -> None:
    """Its own connection stands: it is not green, and says why. A trade is recorded, and every window has it later."""
    async with shown(chrome, f"{made.app_url}/#user={USER}") as page:
        state, trades = page.locator("#state"), page.locator("#trade-count")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-value") or 0)
        earlier = len(made.told())
        made.server.kill()
        await expect(state).to_have_attribute("data-state", "away", timeout=PATIENCE_MS)
        await expect(page.locator("#banner")).to_contain_text("Redis is down. Figures come from memory and")
        await page.locator("#trade .primary").click()
        await expect(page.locator("#trade-said")).to_contain_text("Bought 10 AAPL", timeout=PATIENCE_MS)
        made.server.restart()
        await expect(state).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)
        await until(lambda: len(made.told()) == earlier + 1, "the message of the trade")


async def test_figures_that_cannot_be_had_are_said_to_be_old(chrome: Browser, made: Deployment) -> None:
    """The message came, the application does not answer: the page says so, asks again, and shows the trade at last."""
    async with shown(chrome, f"{made.app_url}/#user={USER}") as page:
        tile, trades = page.locator(".portfolio"), page.locator("#trade-count")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-value") or 0)
        await page.route("**/api/portfolio", lambda route: route.fulfill(status=503))
        await bought(made)
        await expect(tile).to_have_class("tile portfolio old", timeout=PATIENCE_MS)
        await expect(trades).to_have_text(f"{count} trades")
        await page.unroute("**/api/portfolio")
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)
        await expect(tile).to_have_class("tile portfolio")
