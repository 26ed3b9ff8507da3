"""A real browser, real processes: a page that changes by itself, and misses nothing while the gateway is gone."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from tests.support.tradesense_site import PATIENCE_MS, USER, Deployment, heard, in_a_browser, shown
from tests.support.waiting import until

pytestmark = in_a_browser


async def test_the_page_changes_by_itself_and_misses_nothing(chrome: Browser, made: Deployment) -> None:
    """An imported trade shows on the open page. Killed and started again, the gateway loses and repeats no message."""
    async with shown(chrome, f"{made.app_url}/#user={USER}") as page:
        trades = page.locator("#trade-count")
        await expect(trades).to_contain_text("trades")
        count, earlier = int(await trades.get_attribute("data-value") or 0), len(made.told())
        await made.trade("AAPL")
        await expect(trades).to_have_text(f"{count + 1} trades", timeout=PATIENCE_MS)

        made.gateway.kill()
        await made.gateway.wait()
        await expect(page.locator("#state")).not_to_have_attribute("data-state", "open")
        await expect(page.locator("#banner")).to_contain_text("The gateway does not answer. This page asks every 3 s")
        before = len(made.told())
        for symbol in ("MSFT", "IBM", "GOOG"):
            made.announce(symbol)
        await made.trade("AAPL")
        await until(lambda: len(made.told()) >= before + 4, "the messages that nobody passed on")
        await made.start_gateway()
        await expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
        made.announce("MSFT")
        await expect(trades).to_have_text(f"{count + 2} trades", timeout=PATIENCE_MS)

        async def all_heard() -> bool:
            return len(made.told()) == before + 5 and await heard(page) == made.told()[earlier:]

        await until(all_heard, "every message, once, in order")


async def test_a_page_goes_on_over_server_sent_events(chrome: Browser, made: Deployment) -> None:
    """Where no WebSocket opens, the page turns to server-sent events by itself, and misses nothing either."""
    async with shown(chrome, f"{made.app_url}/#user={USER}") as page:
        await page.evaluate("() => { live.sse = true; live.hurry(); }")

        async def over_events() -> bool:
            return bool(await page.evaluate("() => live.line instanceof EventSource && live.state === 'open'"))

        await until(over_events, "an open stream of events")
        earlier = len(made.told())
        made.announce("AAPL")

        async def all_heard() -> bool:
            return len(made.told()) == earlier + 1 and await heard(page) == made.told()[earlier:]

        await until(all_heard, "the message, once")
