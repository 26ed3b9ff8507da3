"""Redis dies under open pages: they say so, keep what was known, and lack nothing once it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import Browser, Page, expect

from cachebus import Cache, CacheSettings
from cachebus.private_server import PrivateServer
from tests.gateway import test_browser, test_page_browser
from tests.gateway.page_site import Site, site
from tests.gateway.test_browser import PATIENCE_MS, USER, Deployment, deployed, heard, shown
from tests.gateway.test_page_browser import flush, opened
from tests.waiting import until

pytestmark = test_browser.pytestmark
browser = test_page_browser.browser


WAKE = "dispatchEvent(new Event('online'))"
"""What a browser says when its machine wakes up: the page connects anew, at once."""


async def events(page: Page) -> list[str]:
    """Return the keys of the events in the page's tail, sorted."""
    chips = await page.locator("#tail .chip.event").all_inner_texts()
    return sorted(chip.rpartition(" · ")[2] for chip in chips)


async def publish(shop: Site, *keys: str) -> None:
    """Publish one event of each key; an outage is waited out."""
    for user, key in enumerate(keys):
        await shop.bus.publish("trade:created", {"user_id": user}, key=key, id=key, timeout="60s")


async def test_the_live_page_is_stale_and_says_so_until_redis_is_back(
    browser: Browser, own_server: PrivateServer
) -> None:
    """Away: no green, the last figures. Back, one more event: every event once, and the figures count them all."""
    async with Cache(settings=CacheSettings(url=own_server.url)) as cache, site(cache) as shop:
        page = await opened(browser, shop)
        pulse, latency = page.locator("#pulse"), page.locator("#latency")
        await publish(shop, "a", "b", "c")
        await until(lambda: shop.consumer.stats.events == 3, "three events")
        await flush(cache)
        await expect(latency).to_contain_text("3 events in 10 min", timeout=PATIENCE_MS)

        own_server.kill()
        await expect(pulse).to_have_text("Redis away", timeout=PATIENCE_MS)
        await expect(page.locator("#state")).to_have_class("state bad")
        await expect(page).to_have_title("✕ cachebus")
        late = asyncio.create_task(publish(shop, "while-away"))
        await expect(latency).to_contain_text("3 events in 10 min")
        assert await events(page) == ["a", "b", "c"]

        own_server.restart()
        await expect(pulse).to_have_text("live", timeout=PATIENCE_MS)
        await late
        await publish(shop, "z-after")
        await until(lambda: shop.consumer.stats.events == 5, "all five events")

        async def all_shown() -> bool:
            return await events(page) == ["a", "b", "c", "while-away", "z-after"]

        await until(all_shown, "every event in the tail, once")
        await flush(cache)
        await expect(latency).to_contain_text("5 events in 10 min", timeout=PATIENCE_MS)
        await expect(page.locator("#state")).not_to_have_class("state bad")
        await page.context.close()


async def bought(made: Deployment) -> None:
    """Record a trade with its event, as an application does whatever has become of Redis."""
    trade = f"record_trade({USER}, 'AAPL', 'buy', 1, '10.00', announce=True)"
    code = f"import asyncio; from tradesense.recording import record_trade; asyncio.run({trade})"
    assert await (await made.start("-c", code)).wait() == 0


async def test_a_trade_that_was_made_while_redis_was_away_shows_when_it_is_back(
    own_server: PrivateServer, tmp_path: Path
) -> None:
    """The page waits for the gateway, the trade in the outbox; then it shows, and every message came once."""
    async with deployed(own_server, tmp_path) as made, shown(f"{made.app_url}/?user={USER}") as page:
        trades = page.locator("#trades")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-count") or 0)
        await bought(made)
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)

        own_server.kill()
        await page.evaluate(WAKE)
        await expect(page.locator("#state")).to_have_text("waiting", timeout=PATIENCE_MS)
        await bought(made)
        await expect(trades).to_have_text(f"{count + 1} trades")
        await page.route("**/ticket", lambda route: route.abort())  # until the message has gone by
        own_server.restart()
        await until(lambda: len(made.told()) == 2, "the message of the trade")
        await page.unroute("**/ticket")
        await page.evaluate(WAKE)
        await expect(page.locator("#state")).to_have_text("open", timeout=PATIENCE_MS)
        await expect(trades).to_have_text(f"{count + 2} trades", timeout=PATIENCE_MS)
        await bought(made)
        await expect(trades).to_have_text(f"{count + 3} trades", timeout=PATIENCE_MS)

        async def all_heard() -> bool:
            return len(made.told()) == 3 and await heard(page) == made.told()

        await until(all_heard, "every message, once, in order")


async def test_a_page_says_that_its_gateway_is_cut_off(own_server: PrivateServer, tmp_path: Path) -> None:
    """Its own connection stands: it is not green meanwhile, and shows what was traded once Redis is back."""
    async with deployed(own_server, tmp_path) as made, shown(f"{made.app_url}/?user={USER}") as page:
        state, trades = page.locator("#state"), page.locator("#trades")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-count") or 0)
        own_server.kill()
        await expect(state).to_have_text("away", timeout=PATIENCE_MS)
        await bought(made)
        own_server.restart()
        await expect(state).to_have_text("open", timeout=PATIENCE_MS)
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)


async def test_figures_that_cannot_be_had_are_said_to_be_old(own_server: PrivateServer, tmp_path: Path) -> None:
    """The message came, the application does not answer: the page says so, asks again, and shows the trade at last."""
    async with deployed(own_server, tmp_path) as made, shown(f"{made.app_url}/?user={USER}") as page:
        value, trades = page.locator("#value"), page.locator("#trades")
        await expect(trades).to_contain_text("trades")
        count = int(await trades.get_attribute("data-count") or 0)
        await page.route("**/portfolio", lambda route: route.fulfill(status=503))
        await bought(made)
        await expect(value).to_have_class("old", timeout=PATIENCE_MS)
        await expect(trades).to_have_text(f"{count} trades")
        await page.unroute("**/portfolio")
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)
        await expect(value).not_to_have_class("old")
