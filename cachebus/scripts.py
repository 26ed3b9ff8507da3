"""The Lua scripts: one verb a file in `lua/`, sent by digest, sent whole when the server has forgotten it.

A line `--@include part` is replaced by `lua/part.lua`: what several scripts do to the ledger is written once.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A verb the server runs as one step: nothing else happens meanwhile. It does not roll back."""

    name: str
    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """Return the script `lua/<name>.lua`, its includes resolved."""
    folder = files("cachebus") / "lua"

    def read(part: str) -> str:
        text = (folder / f"{part}.lua").read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda include: read(include[1]), text)

    text = read(name)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
