"""The dashboard in a real browser, over real processes: what a person sees, and what becomes of what a person does.

All tests share one deployment and two windows of one user; each begins with what it finds.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from cachebus.testing.server import PrivateServer
from tests.support import independent
from tests.support.browsing import listened_to, no_complaints
from tests.support.node import installed
from tests.support.tradesense_site import PATIENCE_MS, USER, Deployment, deployed, in_a_browser
from tests.support.waiting import until

pytestmark = in_a_browser

SEED = "import asyncio; from tradesense.seed import seed; asyncio.run(seed(users=6, trades=600))"
IMPORTED = 5_000
AXE = "axe-core@4.14.1"
ROUNDS = 5
QUIET_USER = 4
"""Nobody trades for this one: all trades are of days that have a close."""
TILES = ("equity", "portfolio", "price", "analytics", "risk", "settings", "trades")
PROVENANCE = re.compile(r"^(memory|Redis|a load|database)[\d,.]+ ms(just now|\d+ (s|min) old|never cached)$")
"""What a tile says beneath its figures: what answered, how long that took, how old it is."""

SHOWN_AT = """count => new Promise(done => {
  const place = document.querySelector("#trade-count");
  const look = () => Number(place.dataset.value) >= count && (watch.disconnect(), done(Date.now()));
  const watch = new MutationObserver(look);
  watch.observe(place, { attributes: true });
  look();
})"""
"""When a window shows so many trades: the machine's clock, milliseconds."""
SHIFTED = """() => new Promise(done => new PerformanceObserver(list => done(list.getEntries()
  .reduce((sum, entry) => sum + entry.value, 0)))
  .observe({ type: "layout-shift", buffered: true }) || setTimeout(done, 200, 0))"""
REACHED = """() => {
  const place = document.activeElement;
  if (place === document.body || "reached" in place.dataset) return null;
  place.dataset.reached = "";
  const marked = ring => ring?.checkVisibility({ opacityProperty: true })
    && getComputedStyle(ring).outlineStyle === "solid";
  return [place, place.nextElementSibling, place.closest("label")].some(marked) ? "in view" : place.outerHTML;
}"""
"""Notes what has the focus; whether people see it there. Null after the last."""
MISSED = """() => [...document.querySelectorAll("a, button, select, input:not([type=radio]), [tabindex='0']")]
  .filter(place => place.checkVisibility() && !("reached" in place.dataset)).map(place => place.outerHTML)"""
"""What can be used and was not reached; of radio buttons only one is, the arrow keys reach the others."""


class Windows(NamedTuple):
    """A deployment, and two open windows of one user."""

    made: Deployment
    one: Page
    other: Page

    async def count(self) -> int:
        """Return how many trades there are, once both windows show as many, and have read all that changed."""
        for page in (self.one, self.other):
            count = page.locator("#trade-count")
            await expect(count).to_have_attribute("data-value", str(self.stored()), timeout=PATIENCE_MS)
            await expect(page.locator("#log .took", has_text="…")).to_have_count(0, timeout=PATIENCE_MS)
        return self.stored()

    def database(self) -> closing[sqlite3.Connection]:
        """Return the database, to be closed."""
        file = self.made.database_url.removeprefix("sqlite:///")
        return closing(sqlite3.connect(file, isolation_level=None))

    def stored(self) -> int:
        """Return how many trades of the user there are."""
        with self.database() as connection:
            (count,) = connection.execute("SELECT count(*) FROM trades WHERE user_id = ?", (USER,)).fetchone()
        return int(count)


async def opened(browser: Browser, url: str, user: int, **options: Any) -> Page:
    """Open a window signed in as *user*."""
    context = await browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    return await look(await context.new_page(), url, user)


async def look(page: Page, url: str, user: int) -> Page:
    """Have a page show the figures of *user*."""
    await listened_to(page).goto(f"{url}/#user={user}")
    await all_shown(page)
    return page


async def all_shown(page: Page) -> None:
    """Wait until the page listens, and every tile says how old it is and what answered."""
    await expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
    await expect(page.locator(".provenance")).to_have_text([PROVENANCE] * len(TILES), timeout=PATIENCE_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """Everything, as `make run` starts it."""
    with PrivateServer.start() as server:
        async with deployed(server, tmp_path_factory.mktemp("dashboard"), SEED) as running:
            yield running


@pytest.fixture(autouse=True)
def nothing_raised() -> Iterator[None]:
    """What a window raises fails the test."""
    yield
    no_complaints()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def windows(made: Deployment, chrome: Browser) -> AsyncIterator[Windows]:
    """Two windows of one browser."""
    one = await opened(chrome, made.app_url, USER)
    yield Windows(made, one, await look(await one.context.new_page(), made.app_url, USER))
    await one.context.close()


def file_of(rows: int, *, bad: int = 0) -> bytes:
    """Return a file of trades; row *bad* has a price that is none."""
    lines = ["symbol,side,quantity,price,at"]
    for n in range(1, rows + 1):
        what, price = f"{('AAPL', 'IBM', 'MSFT')[n % 3]},{('buy', 'sell')[n % 2]},{1 + n % 9}", f"{100 + n / 100:.2f}"
        lines.append(f"{what},{'a lot' if n == bad else price},2012-0{1 + n % 9}-1{n % 10}T15:30:00-05:00")
    return "\n".join(lines).encode()


async def choose(page: Page, file: bytes) -> None:
    """Choose a file to import."""
    await page.set_input_files("#file", {"name": "trades.csv", "mimeType": "text/csv", "buffer": file})


async def test_a_trade_shows_in_every_window(windows: Windows, capsys: pytest.CaptureFixture[str]) -> None:
    """Both change by themselves, and their messages say so; printed: from the click until both show it."""
    took = []
    for _ in range(ROUNDS):
        count = await windows.count()
        shown = [asyncio.ensure_future(page.evaluate(SHOWN_AT, count + 1)) for page in (windows.one, windows.other)]
        clicked = await windows.one.evaluate("() => (document.querySelector('#trade .primary').click(), Date.now())")
        took.append(max(await asyncio.gather(*shown)) - clicked)
        await expect(windows.one.locator("#trade-said")).to_contain_text("Bought 10 AAPL")
    with capsys.disabled():
        sys.stdout.write(
            f"\na trade, until both windows show it: median {statistics.median(took):.0f} ms of {ROUNDS}\n"
        )
    for page in (windows.one, windows.other):
        await expect(page.locator("#log li").first).to_contain_text("trade.new_trade")
        await expect(page.locator("#trades tr").first).to_contain_text("AAPL")


async def test_a_file_with_a_mistake_is_refused_whole(windows: Windows) -> None:
    """Row and field are named and nothing was recorded. Without it: all rows, one message; and never a second time."""
    count, told = await windows.count(), len(windows.made.told())
    said = windows.one.locator("#import-said")
    await choose(windows.one, file_of(IMPORTED, bad=17))
    await expect(said).to_contain_text("Refused, nothing was imported: row 17 (line 18 of the file), price: 'a lot'")
    assert windows.stored() == count
    good = file_of(IMPORTED)
    await choose(windows.one, good)
    await expect(said).to_have_text("5,000 trades imported, with one message.", timeout=PATIENCE_MS)
    assert await windows.count() == count + IMPORTED
    await choose(windows.one, good)
    await expect(said).to_contain_text("imported before", timeout=PATIENCE_MS)
    assert windows.stored() == count + IMPORTED
    assert len(windows.made.told()) == told + 1


async def test_a_worker_that_is_killed_during_an_import_loses_nothing(windows: Windows) -> None:
    """The rows are there once; the next worker tells of them, once, and both windows show them."""
    count, told = await windows.count(), len(windows.made.told())
    said = windows.one.locator("#import-said")
    with windows.database() as writer:
        writer.execute("BEGIN IMMEDIATE")  # holds the import up in its middle
        await choose(windows.one, file_of(IMPORTED + 1))
        await expect(said).to_have_text("5,001 rows checked. Writing…", timeout=PATIENCE_MS)
        windows.made.worker.kill()
        await windows.made.worker.wait()
    await expect(said).to_contain_text("5,001 trades imported", timeout=PATIENCE_MS)
    assert windows.stored() == count + IMPORTED + 1
    await windows.made.start_worker()
    await until(lambda: len(windows.made.told()) > told, "the message", deadline_s=30)
    assert await windows.count() == count + IMPORTED + 1
    assert len(windows.made.told()) == told + 1


async def test_a_setting_leaves_alone_what_it_does_not_shape(windows: Windows) -> None:
    """Another risk-free rate is one more look at settings and risk, in both windows, and at nothing else."""
    await windows.count()
    pages = (windows.one, windows.other)
    before = [await answers(page) for page in pages]
    field = windows.one.locator("[name=risk_free_rate]")
    await field.fill(str((float(await field.input_value()) + 1.25) % 7))
    await field.press("Tab")
    for page, had in zip(pages, before, strict=True):
        for tile in ("settings", "risk"):
            await expect(page.locator(f".{tile}")).to_have_attribute("data-answers", str(had[tile] + 1))
        changed = {tile for tile, count in (await answers(page)).items() if count != had[tile]}
        assert changed == {"settings", "risk", "equity"}  # the equity curve is of the same answer
    await expect(windows.one.locator("#settings-said")).to_contain_text("As they were: portfolio, analytics, prices")


async def answers(page: Page) -> dict[str, int]:
    """Return how many answers each tile has shown."""
    return {tile: int(await page.locator(f".{tile}").get_attribute("data-answers") or 0) for tile in TILES}


async def test_figures_are_those_of_an_independent_calculation(windows: Windows, chrome: Browser) -> None:
    """What windows of two users show, beside pandas on the same rows: cents that were rounded aside."""
    await windows.count()
    world = independent.read(windows.made.database_url)
    quiet = await opened(chrome, windows.made.app_url, QUIET_USER)
    for page, user in ((windows.one, USER), (windows.other, USER), (quiet, QUIET_USER)):
        trades = world.trades[world.trades.user_id == user].reset_index(drop=True)
        settings = world.settings.set_index("user_id").loc[user]
        profits = (independent.fifo_profits if settings.cost_basis == "fifo" else independent.average_profits)(trades)
        held = independent.positions(trades)
        closes = world.bars.sort_values("day").groupby("symbol").close.last()
        value, realized = float((held * closes[held.index]).sum()), float(profits.sum())
        cents = {
            "value": value * 100,
            "realized": realized * 100,
            "unrealized": (value - float(trades.paid.sum()) - realized) * 100,
            "best": float(profits.max()) * 100,
            "worst": float(profits.min()) * 100,
        }
        assert await shown(page, *cents) == pytest.approx(cents, rel=0, abs=len(profits))
        exact = {"closed": len(profits), "fees": int(trades.fee_cents.sum()), "trade-count": len(trades)}
        assert await shown(page, *exact) == exact
        rates = {"win-rate": float((profits > 0).mean())}
        assert await shown(page, *rates) == pytest.approx(rates, abs=2 / len(profits))
        curve = independent.curve(trades, world.bars)
        risk = {
            "drawdown": independent.drawdown(curve.returns),
            "volatility": independent.volatility(curve.returns),
            "sharpe": independent.sharpe(curve.returns, settings.risk_free_rate),
        }
        assert await shown(page, *risk) == pytest.approx(risk)
    await quiet.context.close()


async def shown(page: Page, *names: str) -> dict[str, float]:
    """Return the figures of these names as the page has them."""
    return {name: float(await page.locator(f"#{name}").get_attribute("data-value") or "nan") for name in names}


async def test_the_page_runs_without_the_cache_beside_it(windows: Windows) -> None:
    """The switch shows the same figures from the bare database, the times beside each other."""
    page = windows.other
    value = await page.locator("#value").inner_text()
    await page.locator(".switch").click()
    await expect(page.locator("#time-without")).to_contain_text("as long", timeout=PATIENCE_MS)
    for tile in ("portfolio", "risk", "price"):
        await expect(page.locator(f".{tile} .provenance")).to_contain_text("database")
        await expect(page.locator(f".{tile} .provenance .instead")).to_have_count(1)
    assert await page.locator("#value").inner_text() == value
    await page.locator(".switch").click()
    await expect(page.locator(".portfolio .provenance .chip")).to_have_text("memory", timeout=PATIENCE_MS)


@pytest.mark.parametrize(("width", "theme"), [(360, "light"), (1440, "dark")])
async def test_everybody_can_use_it(made: Deployment, chrome: Browser, width: int, theme: str) -> None:
    """No violation that axe finds; nothing jumps while the page loads; nothing is wider than the window."""
    axe = (installed(AXE) / "node_modules" / "axe-core" / "axe.min.js").read_text()
    page = await opened(chrome, made.app_url, 5, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    html = page.locator("html")
    if await html.get_attribute("data-theme") != theme:
        await page.locator("#theme").click()
    await expect(html).to_have_attribute("data-theme", theme)
    await page.reload()
    await expect(page.locator("#sources")).to_contain_text("answers", timeout=PATIENCE_MS)
    assert await page.evaluate(SHIFTED) <= 0.05
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.evaluate(axe)
    for where in ("document", "'dialog'"):
        found = await page.evaluate(f"async () => (await axe.run({where})).violations")
        assert json.dumps([(each["id"], each["nodes"][0]["html"]) for each in found]) == "[]"
        if where == "document":
            await page.locator("#user").click()
            await expect(page.locator("#people button").first).to_be_visible()
    await page.context.close()


async def test_the_keyboard_is_enough(made: Deployment, chrome: Browser) -> None:
    """Signed in, every control reached and seen to be, and used: trade, switch, theme, dialog."""
    context = await chrome.new_context(viewport={"width": 1440, "height": 900})
    page = listened_to(await context.new_page())
    press = page.keyboard.press
    await page.goto(made.app_url)
    await expect(page.locator("#named")).to_be_focused(timeout=PATIENCE_MS)
    await page.keyboard.type("6")
    await expect(page.locator("#people small").first).to_have_text("6")
    await press("Enter")
    await all_shown(page)
    await expect(page.locator("#sources")).to_contain_text("answers", timeout=PATIENCE_MS)

    await press("Tab")
    while (how := await page.evaluate(REACHED)) is not None:
        assert how == "in view"
        await press("Tab")
    assert await page.evaluate(MISSED) == []

    await page.locator("[name=quantity]").focus()
    await press("ArrowUp")
    await press("Enter")
    await expect(page.locator("#trade-said")).to_contain_text("Bought 11 AAPL", timeout=PATIENCE_MS)
    await page.locator("#bare").focus()
    await press("Space")
    await expect(page.locator("#time-without")).to_contain_text("as long", timeout=PATIENCE_MS)
    theme = await page.locator("html").get_attribute("data-theme")
    await page.locator("#theme").focus()
    await press("Enter")
    await expect(page.locator("html")).not_to_have_attribute("data-theme", str(theme), timeout=PATIENCE_MS)
    await page.locator("#user").focus()
    await press("Enter")
    await expect(page.locator("#named")).to_be_focused()
    await press("Escape")
    await expect(page.locator("#user")).to_be_focused()
    await context.close()
