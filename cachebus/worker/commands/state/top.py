"""`top`: the calls that are read most, of all views, all processes together."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from difflib import get_close_matches

import msgspec

from cachebus.cache.settings import CacheSettings
from cachebus.cache.upkeep.declarations import known_views
from cachebus.cache.upkeep.popularity import most_read
from cachebus.errors import CannotStart
from cachebus.worker.commands.output import write_json, write_table
from cachebus.worker.connection import connected_client


class ReadCall(msgspec.Struct, frozen=True):
    """A call of a view."""

    view: str
    arguments: list[object]
    reads: int
    """Sampled; a read half an hour ago counts half."""


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print them, the most read first. Raises: CannotStart for a view that nobody declares."""
    calls = asyncio.run(_look(asked, CacheSettings.from_environment(environment)))
    if asked.json:
        write_json(calls)
        return 0
    rows = [
        (call.view, ", ".join(msgspec.json.encode(each).decode() for each in call.arguments), call.reads)
        for call in calls
    ]
    write_table(("VIEW", "ARGUMENTS", "READS"), rows, "no call was read lately")
    return 0


async def _look(asked: argparse.Namespace, settings: CacheSettings) -> list[ReadCall]:
    async with connected_client(settings) as client:
        views = {each.view for each in await known_views(client)}
        if asked.view is not None and asked.view not in views:
            near = get_close_matches(asked.view, views, n=1, cutoff=0.3)
            meant = f"; did you mean {near[0]!r}?" if near else "; `cachebus views` lists them"
            raise CannotStart([f"nobody declares a view {asked.view!r}{meant}"])
        wanted = sorted(views) if asked.view is None else [asked.view]
        found = await asyncio.gather(*[most_read(client, view, asked.last) for view in wanted])
    calls = [
        ReadCall(view, msgspec.json.decode(call, type=list[object]), round(reads))
        for view, most in zip(wanted, found, strict=True)
        for call, reads in most
    ]
    return sorted(calls, key=lambda call: call.reads, reverse=True)[: asked.last]
