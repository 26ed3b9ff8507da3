"""The built site in a real browser: `python -m tests.docs.look [pages]` looks at every page, on a phone and on a desk.

What axe finds, what is wider than the screen, what is asked of another host, and what the console complains of; exits 1
where there is any. Build the site first.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from tests.support.browsing import PROGRAM, chromium
from tests.support.node import installed

SITE = Path(__file__).parents[2] / "build/site"
AXE = "axe-core@4.14.1"
WIDTHS = (360, 1440)
WIDER = """() => [document.documentElement.scrollWidth, innerWidth]"""
RUN_AXE = """async () => (await axe.run({resultTypes: ["violations"]})).violations.map(
    found => `${found.id}: ${found.nodes.slice(0, 3).map(node => node.target.join(" ")).join(", ")}`)"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


async def look(browser: Browser, address: str, page_name: str, width: int, scheme: str = "light") -> list[str]:
    """Return what is wrong with a page, a line each."""
    found: list[str] = []
    context = await browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type] # one of playwright's words
    page = await context.new_page()
    page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or found.append(asked.url))
    page.on("pageerror", lambda problem: found.append(f"raised {problem}"))
    await page.goto(f"{address}/{page_name}")
    await page.wait_for_load_state("networkidle")
    wide, inner = await page.evaluate(WIDER)
    if wide > inner:
        found.append(f"{wide} px wide")
    await page.add_script_tag(path=installed(AXE) / "node_modules/axe-core/axe.min.js")
    found += await page.evaluate(RUN_AXE)
    await context.close()
    return [f"{page_name} at {width} px, {scheme}: {problem}" for problem in found]


async def look_at(pages: list[str]) -> list[str]:
    """Return what is wrong with some pages, in both widths and both schemes."""
    problems: list[str] = []
    with served(SITE) as address:
        async with chromium() as browser:
            for page in pages:
                for width, scheme in zip(WIDTHS, ("dark", "light"), strict=True):
                    problems += await look(browser, address, page, width, scheme)
    return problems


def main(pages: list[str]) -> int:
    """Look at the pages named, or at all; returns the exit code."""
    if PROGRAM is None:
        raise SystemExit("no Chromium on this machine: make programs")
    every = sorted(str(page.relative_to(SITE)) for page in SITE.rglob("*.html"))
    problems = asyncio.run(look_at(pages or every))
    sys.stdout.write("\n".join([*problems, f"{len(pages or every)} pages, {len(problems)} problems"]) + "\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
