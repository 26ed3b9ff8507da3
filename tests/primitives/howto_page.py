"""Runs a how-to page as its reader would: every block in order, those after the first inside its `async with`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parents[2] / "docs" / "howto"


async def run_page(name: str, url: str) -> dict[str, Any]:
    """Run all python blocks of a page against the server at *url* and return the names they left."""
    first, *others = re.findall(r"```python\n(.*?)```", (PAGES / name).read_text(), re.DOTALL)
    body = first.replace("redis://localhost:6379", url) + "".join(textwrap.indent(block, "    ") for block in others)
    names: dict[str, Any] = {}
    function = f"async def page():\n{textwrap.indent(body, '    ')}\n    return locals()\n"
    exec(compile(function, name, "exec"), names)  # noqa: S102 - our own page
    left: dict[str, Any] = await names["page"]()
    return left
