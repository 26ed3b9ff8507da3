"""A deployment with its page, and the browsers that look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from cachebus import Cache, CacheSettings
from cachebus.testing.server import PrivateServer
from tests.conftest import PATIENCE_S
from tests.support.browsing import no_complaints
from tests.support.page_site import SUMMARY, Site, flushed, site


@pytest.fixture
async def shop(cache: Cache) -> AsyncIterator[Site]:
    """A deployment with its page."""
    async with site(cache) as running:
        yield running


@pytest.fixture
async def browser(shop: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on this machine that nobody has signed in with."""
    async with httpx.AsyncClient(base_url=shop.url, headers={"Origin": shop.url}, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
async def admin(shop: Site) -> AsyncIterator[httpx.AsyncClient]:
    """An admin's browser, on the page."""
    headers, cookies = {"Origin": shop.url}, await shop.admin()
    async with httpx.AsyncClient(base_url=shop.url, headers=headers, cookies=cookies, timeout=PATIENCE_S) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def busy(chrome: Browser, server: PrivateServer, namespace: str) -> AsyncIterator[Site]:
    """A deployment in which something has happened; what a test has opened is closed after it.

    Whatever a page complained about fails the test.
    """
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache, site(cache) as running:
        for user in (1, 1, 7, 7, 12):
            await cache.views[SUMMARY](user)
            await cache.views["market:{symbol}:quote"]("AAPL")
        await flushed(cache)
        yield running
        for context in chrome.contexts:
            await context.close()
        no_complaints()
