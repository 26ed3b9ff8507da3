"""What the bus's pages say works: each page's blocks, one after the other, are one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from serving import data, running

from cachebus.bridge import Bridge
from cachebus.consumer import Consumer
from cachebus.effects import Broadcast, Effects
from cachebus.handlers import on
from cachebus.link import Link
from cachebus.private_server import PrivateServer

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


@pytest.mark.parametrize("page", ["howto/write-a-handler.md", "howto/publish-from-another-app.md"])
def test_the_python_of_a_page_is_a_program_that_runs(server: PrivateServer, tmp_path: Path, page: str) -> None:
    """Pasted together and run, it works."""
    program = tmp_path / "page.py"
    program.write_text("\n".join(PYTHON.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))))
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_the_commands_of_the_page_reach_a_handler(own_server: PrivateServer, until: Callable[..., Any]) -> None:
    """`XADD` and `PUBLISH` as they stand on the page are an event each."""
    page = (ROOT / "docs/howto/publish-from-another-app.md").read_text(encoding="utf-8")
    commands = [[word or plain for word, plain in words(line)] for line in COMMAND.findall(page)]
    assert [command[0] for command in commands] == ["XADD", "PUBLISH"]
    async with Link(own_server.url) as link:
        consumer, bridge = Consumer(link, [told]), Bridge(link, [told])
        async with running(consumer, bridge):
            await until(lambda: bridge.listening)
            for command in commands:
                own_server.ask(*command)
            await until(lambda: consumer.stats.events == 2)
        assert await data(link) == [123, 123]


def words(line: str) -> list[tuple[str, str]]:
    """Return the words of a shell line, quoted or plain."""
    return re.findall(r"'([^']*)'|(\S+)", line)
