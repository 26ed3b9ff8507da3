"""The Lua scripts: one verb a file in the `lua/` of the room that runs it, known to the server by digest.

`freshness/invalidate` is `cachebus/freshness/lua/invalidate.lua`. A line `--@include room/part` is replaced by that
file: what several scripts do to the ledger is written once.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache

_INCLUDE = re.compile(r"^--@include ([\w/]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A verb the server runs as one step: nothing else happens meanwhile. It does not roll back."""

    name: str
    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """Return the script *name*, such as `freshness/invalidate`, its includes resolved."""
    from importlib.resources import files  # noqa: PLC0415 - imports much, and a process without a server runs no script

    library = files("cachebus")

    def read(part: str) -> str:
        room, _, verb = part.rpartition("/")
        text = library.joinpath(*room.split("/"), "lua", f"{verb}.lua").read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda include: read(include[1]), text)

    text = read(name)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
