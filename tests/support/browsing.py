"""This machine's Chromium, which the tests of a process share (`chrome`), and what its pages complained about."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.page_site import COOKIE, Site

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"), reason="no Chromium on this machine; CI has one and needs it"
)
PATIENCE_MS = 20_000
"""Of what a page is to show; only ever waited out by a test that fails. Playwright's own five seconds are a wait for a
new process of a browser on a machine that runs tests on every core."""
CLICKS = """
window.clicks = 0;
addEventListener("click", (event) => { window.clicks += event.isTrusted && event.detail > 0; });
"""
"""Counts what a person presses: a click with the mouse; Enter in a form is none. Not on its way down to what is
clicked, where Playwright takes back a click on what has moved since it aimed."""

expect.set_options(timeout=PATIENCE_MS)

complaints: list[str] = []
"""What pages raised since somebody last looked."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run this machine's own Chromium, headless."""
    assert PROGRAM is not None, "CI must install Chromium"
    async with async_playwright() as play:
        running = await play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        await running.close()


def listened_to(page: Page) -> Page:
    """Note what a page raises; `no_complaints` fails the test then."""
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    return page


def no_complaints() -> None:
    """Fail where a page has raised something."""
    raised, complaints[:] = list(complaints), []
    assert raised == []


async def opened(browser: Browser, shop: Site, path: str = "/", *, admin: bool = False, **options: object) -> Page:
    """Open the page; what it complains about is in `complaints`."""
    context = await browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **options})  # type: ignore[arg-type] # playwright's own names
    if admin:
        await context.add_cookies([{"name": COOKIE, "value": (await shop.admin())[COOKIE], "url": shop.url}])
    await context.add_init_script(CLICKS)
    page = listened_to(await context.new_page())
    await page.goto(shop.url + path)
    await expect(page.locator("#age")).to_have_text("live")
    return page


async def look_again(page: Page) -> None:
    """Have the page ask at once, as when somebody comes back to it, and not only after its pause."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
