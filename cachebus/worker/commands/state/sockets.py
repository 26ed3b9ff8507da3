"""`sockets`: which browsers are connected, as the gateways tell it now."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from cachebus.cache.settings import CacheSettings
from cachebus.monitoring.sockets import MOST_TOLD, GatewaySockets, open_sockets
from cachebus.worker.commands.output import moment, span, write_json, write_table
from cachebus.worker.connection import connected_client


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one row a gateway, then one row a socket."""
    gateways = asyncio.run(_ask(CacheSettings.from_environment(environment), asked.user))
    if asked.json:
        write_json(gateways)
        return 0
    rows = [
        (each.process, each.sockets, "now" if each.answered else f"{span(each.reported_ms_ago * 1000)} ago")
        for each in gateways
    ]
    write_table(("GATEWAY", "SOCKETS", "REPORTED"), rows, "no gateway is at work")
    if any(each.answered for each in gateways):
        sys.stdout.write("\n")
        _write_open(gateways, asked.user)
    return 0


def _write_open(gateways: list[GatewaySockets], user: str) -> None:
    rows = [
        (each.user, moment(each.since_ms * 1000), each.queued, each.last, _topics(each.topics, each.more_topics), name)
        for name, opened in ((gateway.process, gateway.open) for gateway in gateways)
        for each in opened
    ]
    nothing = f"user {user} has no socket" if user else "no socket is open"
    write_table(("USER", "SINCE", "WAITING", "LAST", "TOPICS", "GATEWAY"), rows, nothing)
    for gateway in gateways:
        if len(gateway.open) == MOST_TOLD:
            sys.stdout.write(f"of {gateway.process} the newest {MOST_TOLD}; --user USER finds those of one user\n")


def _topics(topics: list[str], more: int) -> str:
    return ",".join(topics) + (f" and {more} more" if more else "")


async def _ask(settings: CacheSettings, user: str) -> list[GatewaySockets]:
    async with connected_client(settings) as client:
        return await open_sockets(client, user)
