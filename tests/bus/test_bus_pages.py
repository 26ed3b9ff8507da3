"""What the bus's pages say works: each page's blocks, one after the other, are one program."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import data, running

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^    redis-cli (.+)$", re.MULTILINE)


class TradeEvent(msgspec.Struct):
    user_id: int
    action: Literal["new_trade"]


@on("trade:updates", TradeEvent)
def told(event: TradeEvent) -> Effects:
    """Broadcast the user."""
    yield Broadcast("told", event.action, event.user_id)


async def test_the_commands_of_the_page_reach_a_handler(own_server: PrivateServer, until: Callable[..., Any]) -> None:
    """`XADD` and `PUBLISH` as they stand on the page are an event each."""
    page = (ROOT / "docs/howto/publish-from-another-app.md").read_text(encoding="utf-8")
    commands = [[word or plain for word, plain in words(line)] for line in COMMAND.findall(page)]
    assert [command[0] for command in commands] == ["XADD", "PUBLISH"]
    async with Client(own_server.url) as client:
        consumer, bridge = Consumer(client, [told]), Bridge(client, [told])
        async with running(consumer, bridge):
            await until(lambda: bridge.listening)
            for command in commands:
                own_server.ask(*command)
            await until(lambda: consumer.stats.events == 2)
        assert await data(client) == [123, 123]


def words(line: str) -> list[tuple[str, str]]:
    """Return the words of a shell line, quoted or plain."""
    return re.findall(r"'([^']*)'|(\S+)", line)
