"""Writes `docs/images/dashboard.webp`: the dashboard on a desk and on a phone, a trade that both show, the switch.

`python -m tests.support.dashboard_picture` starts everything, drives Chromium, and puts its screenshots, which are WebP
already, into one animation.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.async_api import CDPSession, FrameLocator, Page, expect

from cachebus.testing.server import PrivateServer
from tests.support.browsing import chromium
from tests.support.tradesense_site import ROOT, deployed

PICTURE = ROOT / "docs" / "images" / "dashboard.webp"
SEED = "import asyncio; from tradesense.seed import seed; asyncio.run(seed())"
USER = 40
WIDTH, HEIGHT, SCALE = 1690, 980, 0.6
QUALITY = 62
PAGE = f"""<!doctype html><title>two windows</title><style>
  body {{ margin: 0; width: {WIDTH}px; height: {HEIGHT}px; background: #c9d0db; }}
  body {{ display: flex; gap: 20px; padding: 20px; box-sizing: border-box; }}
  iframe {{ border: 0; border-radius: 14px; height: 940px; box-shadow: 0 10px 40px rgb(0 0 0 / .25); }}
</style>
<iframe name="desk" style="width: 1260px" src="/"></iframe>
<iframe name="phone" style="width: 370px" src="/"></iframe>"""

LIGHT = """() => fetch("/api/settings", { method: "PATCH", headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ theme: "light", grouping: "month" }) })"""
Frame = tuple[bytes, int]
"""A screenshot, and how long it is shown, milliseconds."""


async def film(page: Page, shots: CDPSession) -> list[Frame]:
    """Return the frames of the story."""
    frames: list[Frame] = []

    async def shoot(ms: int) -> None:
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": SCALE}
        shot = await shots.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY, "clip": clip})
        frames.append((base64.b64decode(shot["data"]), ms))

    desk, phone = page.frame_locator("[name=desk]"), page.frame_locator("[name=phone]")
    await shoot(1600)
    for _ in range(2):
        count = int(await desk.locator("#trade-count").get_attribute("data-value") or 0) + 1
        await desk.locator("#trade .primary").click()
        for window in (desk, phone):
            await expect(window.locator("#trade-count")).to_have_attribute("data-value", str(count))
        await shoot(450)
        await page.wait_for_timeout(1500)
        await shoot(900)
    await desk.locator(".switch").click()
    await expect(desk.locator("#time-without")).to_contain_text("as long", timeout=20_000)
    await quiet(desk)
    await page.wait_for_timeout(700)
    await shoot(2600)
    await desk.locator("#theme").click()
    for window in (desk, phone):
        await expect(window.locator("html")).to_have_attribute("data-theme", "dark")
    await page.wait_for_timeout(700)
    await shoot(2200)
    return frames


async def quiet(window: FrameLocator) -> None:
    """Wait until the times beside each other are there."""
    await expect(window.locator(".price .provenance .instead")).to_be_visible(timeout=20_000)


async def main() -> None:
    """Start everything, film it, write the picture."""
    with PrivateServer.start() as server, tempfile.TemporaryDirectory() as directory:
        async with deployed(server, Path(directory), SEED) as made, chromium() as browser:
            page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            await page.goto(f"{made.app_url}/#user={USER}")
            await expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=20_000)
            await page.evaluate(LIGHT)
            await page.route("**/two", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
            await page.goto(f"{made.app_url}/two")
            for name in ("desk", "phone"):
                window = page.frame_locator(f"[name={name}]")
                await expect(window.locator("#state")).to_have_attribute("data-state", "open", timeout=20_000)
                await expect(window.locator("#sources")).to_contain_text("answers", timeout=20_000)
            await page.wait_for_timeout(1500)
            frames = await film(page, await page.context.new_cdp_session(page))
    PICTURE.write_bytes(animation(frames, int(WIDTH * SCALE), int(HEIGHT * SCALE)))
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}: {len(frames)} frames, {PICTURE.stat().st_size // 1000} KB\n")


def animation(frames: list[Frame], width: int, height: int) -> bytes:
    """Return one WebP of several, shown for ever. Source: the WebP Container Specification, "Animation"."""
    size = _24(width - 1) + _24(height - 1)
    parts = [_chunk(b"VP8X", b"\x02\0\0\0" + size), _chunk(b"ANIM", b"\xff\xff\xff\xff" + b"\0\0")]
    for picture, ms in frames:
        data = b"".join(_chunk(name, body) for name, body in _chunks(picture) if name in {b"VP8 ", b"VP8L"})
        parts.append(_chunk(b"ANMF", _24(0) + _24(0) + size + _24(ms) + b"\x02" + data))
    return _chunk(b"RIFF", b"WEBP" + b"".join(parts))


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at < len(picture):
        (length,) = struct.unpack_from("<I", picture, at + 4)
        yield picture[at : at + 4], picture[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _24(number: int) -> bytes:
    return number.to_bytes(3, "little")


if __name__ == "__main__":
    asyncio.run(main())
