"""The page of a large deployment: 200 views, 60 processes, 16 shards, 5,000 letters, 100,000 events a second."""

from __future__ import annotations

import asyncio
import sys
import time

import httpx
import msgspec
import pytest
from playwright.async_api import Browser, expect

from cachebus import Client
from cachebus.cache.upkeep.reporter import LATENCY, ProcessReport
from cachebus.monitoring.verdict.chronicle import Chronicle
from cachebus.monitoring.verdict.servers import ServerFacts
from tests.support.browsing import needs_chromium, opened
from tests.support.page_site import Site

VIEWS, PROCESSES, SHARDS, LETTERS, EVENTS_A_SECOND = 200, 60, 16, 5_000, 100_000
MOST_BYTES = 250_000
"""Of an answer, compressed by nobody: at two looks in three seconds that is what a phone takes."""
TABS = (
    "now?window=24h",
    "views?window=24h",
    "view?name=view-7:%7Bid%7D",
    "failures",
    "jobs",
    "browsers",
    "limits",
    "machine",
)


def views() -> list[str]:
    return [f"view-{number}:{{id}}" for number in range(VIEWS)]


async def reported(client: Client) -> None:
    """Have every process report: one that has not for a minute is not shown."""
    names, call, now_us = client.names, client.store.call, client.now_us()
    ttls = dict.fromkeys(views(), 300_000)
    for number in range(PROCESSES):
        gauges = {"sockets": 800.0} if number < 10 else {}
        report = ProcessReport(
            f"web-{number}.7", now_us, 1000, 900_000, 5, 1.5, 0, 0, gauges, ttls, "", "4d5e6f", "0.1.0"
        )
        await call("HSET", names.bus("processes"), report.name, msgspec.json.encode(report))
    await call("EXPIRE", names.bus("processes"), 300)


async def recorded(client: Client) -> None:
    """Write what such a deployment leaves in Redis."""
    names, call, now_us = client.names, client.store.call, client.now_us()
    second = now_us // 1_000_000
    counted = {"l1_hits": 90_000, "l2_hits": 4000, "joined": 500, "loads": 5000, "warms": 800, "load_ms": 60_000}
    counted |= {"bytes_raw": 9_000_000, "bytes_stored": 4_000_000, "invalidations": 700, "invalidated by event": 700}
    fields: list[str | int] = []
    for view in views():
        fields += [part for name, number in counted.items() for part in (f"{view}|{name}", number)]
    fields += [f"{LATENCY}|5", 55 * EVENTS_A_SECOND, f"{LATENCY}|300", 5 * EVENTS_A_SECOND]
    ahead = -5  # the page may be looked at a minute later
    buckets = [("minute", second - second % 60 - 60 * back) for back in range(ahead, 60)]
    buckets += [("hour", second - second % 3600 - 3600 * back) for back in range(-1, 24)]
    for kind, start in buckets:
        key = names.bus("history", kind, str(start))
        await call("HSET", key, *fields)
        await call("EXPIRE", key, 300)
    await reported(client)
    for shard in range(SHARDS):
        await call("HSET", names.bus("shard", str(shard)), "position", "1-1", "behind", 1)
        await call("SET", names.bus("lease", str(shard)), f"worker-{shard % 4}/x", "EX", 300)
    letter = ("kind", "failed", "channel", "order:paid", "payload", "x" * 900, "handler", "shop.send", "attempts", 5)
    for first in range(0, LETTERS, 250):
        calls = [
            ("XADD", names.bus("deadletters"), "*", *letter, "reason", f"KeyError: {n}")
            for n in range(first, first + 250)
        ]
        await asyncio.gather(*[client.store.call(*each) for each in calls])
    for minute in range(1440):
        facts = ServerFacts("Redis", up=True, memory=10**9 + minute * 10**6, memory_limit=4 * 10**9)
        if minute % 8 == 0:
            await Chronicle(client).note_sample(now_us / 1000 - (1440 - minute) * 60_000, [facts])


@needs_chromium
@pytest.mark.xdist_group("page")
@pytest.mark.asyncio(loop_scope="session")
async def test_a_large_deployment_is_shown_as_quickly(chrome: Browser, busy: Site) -> None:
    """Each answer is bounded and comes within its deadline; the tabs show all there is, or how much is left out."""
    client = busy.cache.client
    await recorded(client)
    async with httpx.AsyncClient(base_url=busy.url, timeout=8) as browser:
        for path in TABS:
            began = time.perf_counter()
            answer = await browser.get(f"/page/api/{path}")
            took = time.perf_counter() - began
            sys.stdout.write(f"{path}: {len(answer.content):,} bytes in {took:.2f} s\n")
            assert answer.status_code == 200
            assert len(answer.content) < MOST_BYTES, path
    page = await opened(chrome, busy)
    await expect(page.locator(".tile", has_text="Fresh within")).to_contain_text("100 %")
    await expect(page.locator(".tile", has_text="Fresh within")).to_contain_text("360M events")
    await page.get_by_role("navigation").get_by_role("link", name="Views").click()
    await expect(page.locator("tbody tr")).to_have_count(VIEWS + 4)
    await reported(client)
    await page.get_by_role("navigation").get_by_role("link", name="Machine").click()
    await expect(page.locator("main")).to_contain_text("of 6")
    await expect(page.locator("table", has_text="Held by").locator("tbody tr")).to_have_count(SHARDS)
    await page.get_by_role("navigation").get_by_role("link", name="Failures").click()
    await expect(page.locator("main")).to_contain_text("5,000 dead letters in 1 group")
    await expect(page.locator("#letters details > summary .why")).to_have_count(50)
