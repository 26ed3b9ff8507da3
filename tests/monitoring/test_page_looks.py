"""How the live page looks: to people who see, who do not, who see no colours, on a phone and on a wall."""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Browser, Page, Route, expect

from cachebus.cache.upkeep.answers import ask
from cachebus.limits.limiter import RateLimiter
from cachebus.locks.locks import Locks
from cachebus.monitoring.advice.analysis import report_key
from cachebus.monitoring.advice.report import Report
from cachebus.monitoring.page.tabs.event import lives_of
from cachebus.monitoring.verdict.chronicle import AlertRules
from cachebus.monitoring.verdict.gathering import Gathering
from cachebus.monitoring.verdict.watch import Watch
from tests.support.browsing import needs_chromium, opened
from tests.support.node import installed
from tests.support.page_site import Site, fail_mails, flushed
from tests.support.waiting import until

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("page")]

AXE = "axe-core@4.10.3"
SUPPORT = Path(__file__).parents[1] / "support"
PICTURES = Path(__file__).parents[2] / ".data" / "screenshots"
SUMMARY_PAGE = "portfolio%3A%7Buser_id%7D%3Asummary"
TABS = (
    *("now", "views", f"views/{SUMMARY_PAGE}?window=1h", "events", "events/trade-3", "failures", "jobs"),
    *(f"views/compare?a={SUMMARY_PAGE}&b=market%3A%7Bsymbol%7D%3Aquote", "jobs/report.daily", "browsers?user=7"),
    *("keys?kind=user&name=7", "keys/portfolio%3A7%3Asummary", "limits", "machine", "advice", "audit"),
)
ALL = os.environ.get("LOOKS") == "all"
LOOKS = [("light", (1440, 768, 360)), ("dark", (1440, 768, 360))] if ALL else [("light", (1440, 768)), ("dark", (360,))]
SHIFTS = """
window.shifted = 0;
window.moved = [];
const box = ({ x, y, width, height }) => `${x},${y} ${width}x${height}`;
const place = ({ node, previousRect, currentRect }) =>
  `${(node?.outerHTML ?? node?.textContent ?? "").slice(0, 60)} from ${box(previousRect)} to ${box(currentRect)}`;
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) {
    if (each.sources.every(({ node }) => document.querySelector("#tail")?.contains(node))) continue; // it does move
    window.shifted += each.value;
    window.moved.push(...each.sources.map(place));
  }
}).observe({ type: "layout-shift", buffered: true });
"""
TWO_FRAMES = "new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))"
FAULTS = """
async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const found = await axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
  const said = ({ html, any }) => `${html.slice(0, 160)} ${any[0]?.message ?? ""}`;
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(said).join(" | ")}`);
}
"""


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core."""
    return (installed(AXE) / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


async def lived_in(shop: Site) -> None:
    """Have everything happen that a tab can show."""
    await fail_mails(shop, "ada@example.com", "grace@example.com")
    await shop.scheduler.run_now("report.daily")
    handled = shop.consumer.stats.events
    for user in range(1, 9):
        await shop.bus.publish("trade:created", {"user_id": user}, key=f"user-{user}", id=f"trade-{user}")
    await until(lambda: shop.consumer.stats.events == handled + 8, "all events to be handled")
    await shop.cache.views["portfolio:{user_id}:summary"](7)
    await Locks(shop.cache.client, owner="importer").lock("import:prices", "10m", renew=False).acquire()
    await shop.sessions.create("7", ip="10.0.0.1", user_agent="a browser")
    limiter = RateLimiter(shop.cache)
    for _ in range(7):
        await limiter.check("login:7", limit=5, window="1m")
    await limiter.check("export:7", limit=100, window="1h")
    for question in ("memory portfolio:7:summary", "limits"):
        await ask(shop.cache.client, question, dict)
    await lives_of(shop.cache, "trade-3", 1)
    await flushed(shop.cache)
    kept = msgspec.json.decode((SUPPORT / "advice_report.json").read_bytes(), type=Report)
    report = msgspec.structs.replace(kept, at_ms=shop.cache.client.now_us() / 1000 - 60_000)
    await shop.cache.client.store.call("SET", report_key(shop.cache.client), msgspec.json.encode(report), "EX", 600)
    await Watch(Gathering(shop.cache.client, shards=1, scheduler=None), name="w", rules=AlertRules()).look()


async def shown(page: Page, shop: Site, tab: str) -> None:
    """Go to a tab and wait until it is drawn."""
    await page.goto(f"{shop.url}/#/{tab}")
    await expect(page.locator(f"main[data-at='#/{tab}']")).to_be_visible()
    for chart in await page.locator("[data-chart]").all():
        await expect(chart.locator("canvas")).to_be_visible()


async def stand_still(page: Page) -> None:
    """Answer every question but the first as the first, late enough for the wait to be seen.

    What then moves is not new: it came too late.
    """
    kept: dict[str, tuple[int, dict[str, str], bytes]] = {}

    async def answered(route: Route) -> None:
        url = route.request.url
        await page.evaluate(TWO_FRAMES)
        if url not in kept:
            answer = await route.fetch()
            kept[url] = answer.status, answer.headers, await answer.body()
        status, headers, body = kept[url]
        await route.fulfill(status=status, headers=headers, body=body)

    async def late(route: Route) -> None:
        await page.evaluate(TWO_FRAMES)
        await route.continue_()

    await page.route(lambda url: "/page/api/" in url and not url.endswith("/tail"), answered)
    await page.route("**/page/vendor/*", late)


@pytest.mark.parametrize(("scheme", "widths"), LOOKS)
async def test_every_tab_is_for_everybody(
    chrome: Browser, busy: Site, axe: str, scheme: str, widths: tuple[int, ...]
) -> None:
    """No fault that axe finds, nothing sticks out, nothing moves once it is shown. `LOOKS=all` takes pictures, too."""
    await lived_in(busy)
    page = await opened(chrome, busy, admin=True, color_scheme=scheme)
    await page.add_init_script(SHIFTS)
    await stand_still(page)
    await page.reload()
    await page.evaluate(axe)
    wrong: list[Any] = []
    began = time.perf_counter()
    for width, tab in itertools.product(widths, TABS):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.evaluate(TWO_FRAMES)
        await page.evaluate("window.shifted = 0; window.moved = []")
        await shown(page, busy, tab)
        shifted, moved = await page.evaluate("[window.shifted, window.moved]")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        if ALL or width != 768:  # half a second each
            wrong += [(tab, width, each) for each in await page.evaluate(FAULTS)]
        wrong += [(tab, width, f"{shifted} of layout shift: {moved}")] if shifted > 0.05 else []
        wrong += [(tab, width, f"is {wide} px wide")] if wide > width else []
        if ALL:
            PICTURES.mkdir(parents=True, exist_ok=True)
            name = tab.partition("?")[0].replace("/", "-").replace("%3A", "_").replace("%7B", "").replace("%7D", "")
            await page.screenshot(
                path=PICTURES / f"{name}-{width}-{scheme}.jpg", type="jpeg", quality=70, full_page=True
            )
    sys.stdout.write(f"{len(TABS) * len(widths)} looks in {time.perf_counter() - began:.1f} s\n")
    assert "\n".join(map(str, wrong)) == ""
