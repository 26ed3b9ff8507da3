"""`page-link`: print a link that signs its bearer in as an admin, once, within ten minutes.

Whoever can reach Redis can make one; nobody else can. The code stands behind '#', which no browser sends and no server
logs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from cachebus.cache.settings import CacheSettings
from cachebus.errors import CannotStart
from cachebus.monitoring.sign_in import one_use_code
from cachebus.worker.commands import audited
from cachebus.worker.connection import connected_client


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the link. Raises: CannotStart, ServerError without Redis."""
    settings = CacheSettings.from_environment(environment)
    if not asked.url.startswith(("http://", "https://")):
        raise CannotStart([f"{asked.url!r} is not the page's address; write it like https://cache.example.com"])
    sys.stdout.write(asyncio.run(link(settings, asked.url, asked.name or audited.operator())) + "\n")
    return 0


async def link(settings: CacheSettings, url: str, name: str) -> str:
    """Return a link to the page at *url* that signs *name* in."""
    async with connected_client(settings) as client:
        await audited.note(client, "page-link", url=url, name=name)
        return f"{url.rstrip('/')}/#enter={await one_use_code(client, name)}"
