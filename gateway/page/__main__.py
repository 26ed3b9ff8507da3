"""`python -m gateway.page`: print a link that signs its bearer in as an admin, once, within ten minutes.

Whoever can reach Redis can make one; nobody else can. The code stands behind '#', which no browser sends and no server
logs.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys

from cachebus import Cache, ServerError
from gateway.page.access import one_use_code


async def _link(url: str, name: str) -> str:
    async with Cache.from_env() as cache:
        return f"{url.rstrip('/')}/#enter={await one_use_code(cache.link, name)}"


def main() -> int:
    """Print the link; 1 without Redis."""
    parser = argparse.ArgumentParser(prog="python -m gateway.page", description=__doc__)
    parser.add_argument("url", nargs="?", default="http://localhost:8080", help="where the page is")
    parser.add_argument("--name", default=getpass.getuser(), help="who you are, for the audit log")
    asked = parser.parse_args()
    try:
        sys.stdout.write(asyncio.run(_link(asked.url, asked.name)) + "\n")
    except ServerError as away:
        sys.stderr.write(f"redis does not answer: {away}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
