"""Who may look at the page, and how one signs in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from cachebus import Cache
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.page import one_use_code
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.page_site import COOKIE, Site, fail_a_mail, site
from tests.support.waiting import until


def elsewhere(shop: Site) -> httpx.AsyncClient:
    """Return a browser on another machine."""
    transport = httpx.ASGITransport(app=shop.app, client=("203.0.113.9", 4711))
    return httpx.AsyncClient(transport=transport, base_url="https://cache.example.com")


@pytest.fixture
async def closed(cache: Cache) -> AsyncIterator[Site]:
    """A deployment whose page is as it is without a setting."""
    async with site(cache, open_to_all=False) as running:
        yield running


@pytest.mark.parametrize(
    "header", [{}, {"X-Forwarded-For": "203.0.113.9"}, {"Via": "1.1 proxy"}, {"Host": "cache.example.com"}]
)
async def test_whoever_looks_signs_in_wherever_the_request_comes_from(closed: Site, header: dict[str, str]) -> None:
    """A proxy speaks from this machine, with headers or, as nginx does by itself, without: nothing is shown to it."""
    await fail_a_mail(closed)
    async with httpx.AsyncClient(base_url=closed.url, headers=header, timeout=30) as browser:
        for path in ("now", "letters", "tail", "inspect?key=portfolio:7:summary", "audit", "sessions?user=7"):
            answer = await browser.get(f"/page/api/{path}")
            assert answer.status_code == 401, path
            assert "cachebus page-link" in answer.json()["error"]


async def test_a_link_opens_the_page_and_an_outage_does_not_close_it(
    connect: Connect, own_server: PrivateServer
) -> None:
    """Who has signed in goes on looking while Redis is down; a stranger does not."""
    async with Cache(own_server.url) as cache, site(cache, open_to_all=False) as shop:
        code, bob = await one_use_code(cache.client, "grace"), await shop.sessions.create("bob", {"role": "user"})
        async with httpx.AsyncClient(base_url=shop.url, headers={"Origin": shop.url}, timeout=30) as browser:
            assert (await browser.post("/page/api/enter", json={"code": code})).status_code == 200
            assert (await browser.get("/page/api/now")).json()["me"] == {"name": "grace", "admin": True}
            own_server.kill()
            await until(lambda: not cache.client.store.up, "the outage")
            assert (await browser.get("/page/api/now")).json()["state"]["level"] == "bad"
            browser.cookies.clear()
            assert (await browser.get("/page/api/now")).status_code == 401
            other = {"Cookie": f"{COOKIE}={bob}"}
            assert (await browser.get("/page/api/now", headers=other)).status_code == 503


async def test_an_admin_looks_from_anywhere_and_others_do_not(closed: Site) -> None:
    """The role decides, not the login."""
    user = await closed.sessions.create("bob", {"role": "user"})
    async with elsewhere(closed) as browser:
        answer = await browser.get("/page/api/now", headers={"Cookie": f"{COOKIE}={user}"})
        assert answer.status_code == 401
        answer = await browser.get("/page/api/now", headers={"Cookie": f"{COOKIE}={(await closed.admin())[COOKIE]}"})
        assert answer.json()["me"] == {"name": "ada", "admin": True}


async def test_a_link_signs_in_once(shop: Site, browser: httpx.AsyncClient) -> None:
    """The code of a printed link makes an admin session the first time, and nothing the second time."""
    code = await one_use_code(shop.cache.client, "grace")
    first = await browser.post("/page/api/enter", json={"code": code})
    assert first.status_code == 200
    assert "httponly" in first.headers["set-cookie"].lower()
    assert (await browser.get("/page/api/now")).json()["me"] == {"name": "grace", "admin": True}
    assert (await browser.post("/page/api/enter", json={"code": code})).status_code == 403
    (record,) = await Audit(shop.cache.client).newest()
    assert (record.who, record.action) == ("grace", "enter")


async def test_one_sign_in_opens_every_page_of_a_host(connect: Connect) -> None:
    """The worker's page and the gateway's, on their own ports: whoever entered one may look and act on the other."""
    first, second = await connect(), await connect()
    async with (
        site(first, open_to_all=False) as worker,
        site(second, open_to_all=False) as gateway,
        httpx.AsyncClient(headers={"Origin": gateway.url}, timeout=30) as browser,
    ):
        code = {"code": await one_use_code(first.client, "grace")}
        entered = await browser.post(f"{worker.url}/page/api/enter", json=code, headers={"Origin": worker.url})
        assert entered.status_code == 200
        assert (await browser.get(f"{gateway.url}/page/api/now")).json()["me"] == {"name": "grace", "admin": True}
        purge = {"kind": "tag", "name": "a"}
        assert (await browser.post(f"{gateway.url}/page/api/purge", json=purge)).status_code == 200
