"""Users whom the access rules forbid something: what is stored is stored once, and the missing rule is named."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import cachebus
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects, Invalidate, Publish
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.bus.permissions import refused_channels, refused_commands
from cachebus.bus.publisher import Bus
from cachebus.redis import subscriptions
from cachebus.redis.client import Client
from cachebus.redis.embedded.loopback import HOST, ask
from cachebus.testing.server import PrivateServer
from tests.support.lacking import program
from tests.support.other_servers import processes
from tests.support.serving import data, ledger, number, running
from tests.support.waiting import until

ALL = ("on", ">pw", "~*", "+@all")


@on("numbers", dict[str, int])
def echo(event: dict[str, int]) -> Effects:
    """Invalidate, broadcast, publish once more."""
    yield Invalidate(tags=[f"n:{event['n']}"])
    yield Broadcast("numbers", "n", event["n"])
    if event["n"] < 100:
        yield Publish("numbers", {"n": event["n"] + 100})


@asynccontextmanager
async def user(server: PrivateServer, *rules: str) -> AsyncIterator[Client]:
    """Connect as a user with these rules and no others."""
    server.ask("ACL", "SETUSER", "app", "reset", *rules)
    async with Client(server.url.replace("redis://", "redis://app:pw@")) as client:
        yield client


@pytest.fixture(params=["valkey", "redis"])
def acl_server(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """The port and URL of a server of this test's own, of either make."""
    if request.param == "valkey":
        with PrivateServer.start() as private:
            yield private.port, private.url
    else:
        with processes(program("redis-server"), ("--appendonly no --save",)) as (redis,):
            yield redis.port, f"redis://{HOST}:{redis.port}/0"


async def test_without_channels_events_are_handled_once(
    acl_server: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    """PUBLISH is refused: nothing is written twice, `publish()` does not raise, and one line names the rule."""
    port, url = acl_server
    ask(port, "ACL", "SETUSER", "app", "reset", *ALL)
    async with Client(url.replace("redis://", "redis://app:pw@")) as client:
        bus, consumer = Bus(client), Consumer(client, [echo])
        async with running(consumer):
            for n in range(3):
                await bus.publish("numbers", {"n": n})
            await until(lambda: consumer.stats.events == 6, "three events, and the three they lead to")
        assert sorted(await data(client)) == [0, 1, 2, 100, 101, 102]
        assert await DeadLetters(client).count() == 0
        assert {f"t:n:{n}" for n in (0, 1, 2, 100, 101, 102)} <= (await ledger(client)).keys()
    said = [record.getMessage() for record in caplog.records if "ACL SETUSER" in record.getMessage()]
    assert len(said) == 2, "one line of the publisher, one of the consumer"


async def test_a_command_that_is_refused_is_found_before_anything_is_written(
    own_server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    """XTRIM comes last in a commit: without it nothing is written, with it everything once."""
    async with user(own_server, *ALL, "&*", "-xtrim") as client:
        consumer = Consumer(client, [echo])
        async with running(consumer):
            await Bus(client).publish("numbers", {"n": 1000})
            await until(lambda: consumer.stats.faults >= 2, "two attempts")
            assert await data(client) == []
            assert "ACL SETUSER app +xtrim" in caplog.text
            own_server.ask("ACL", "SETUSER", "app", "+xtrim")
            await until(lambda: consumer.stats.events == 1)
        assert await data(client) == [1000]


async def test_a_rule_taken_back_while_it_works_repeats_at_most_one_commit(own_server: PrivateServer) -> None:
    """The commit that was refused in the middle waits until the whole of it is allowed."""
    async with user(own_server, *ALL, "&*") as client:
        consumer = Consumer(client, [echo])
        async with running(consumer):
            await until(lambda: consumer.active)
            own_server.ask("ACL", "SETUSER", "app", "-xtrim")
            await Bus(client).publish("numbers", {"n": 1000})
            await until(lambda: consumer.stats.faults >= 4, "four attempts")
            assert await data(client) == [1000], "written in part, once"
            own_server.ask("ACL", "SETUSER", "app", "+xtrim")
            await until(lambda: consumer.stats.events == 1)
        assert await data(client) == [1000, 1000]


async def test_after_a_message_that_was_refused_no_other_is_skipped(own_server: PrivateServer) -> None:
    """The notice for bridges was allowed, the message was not: the next plain message of that length is an event."""
    async with user(own_server, *ALL, "resetchannels", "&{cachebus}:*") as limited, Client(own_server.url) as client:
        bridge = Bridge(client, [echo])
        async with running(bridge):
            await until(lambda: bridge.listening)
            await Bus(limited).publish("numbers", {"n": 1})
            await client.store.call("PUBLISH", "numbers", number(2))
            await until(lambda: bridge.stats.appended == 1)
        assert bridge.stats.skipped == 0


async def test_a_worker_that_may_not_hear_says_once_which_rules_are_missing(
    own_server: PrivateServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for them, and hears as soon as they are there."""
    monkeypatch.setattr(subscriptions, "CONFIRM_S", 0.1)
    async with user(own_server, *ALL, "resetchannels", "&{cachebus}:*") as client:
        bridge = Bridge(client, [echo])
        async with running(bridge):
            await until(lambda: "&numbers" in caplog.text, "the rule")
            own_server.ask("ACL", "SETUSER", "app", "&*")
            await until(lambda: bridge.listening, "the channel")
    said = [record.getMessage().rpartition("; ")[2] for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["add it: ACL SETUSER app &ws:*", "add it: ACL SETUSER app &numbers"]


async def test_what_is_missing_is_named_with_the_rule_to_add(own_server: PrivateServer) -> None:
    """For `doctor` and the start of a worker; a user with everything gets no line."""
    async with user(own_server, *ALL, "&*") as client:
        assert await refused_commands(client) == []
        assert await refused_channels(client, ["trade:*", "numbers"]) == []
    async with user(own_server, *ALL, "resetchannels", "&{cachebus}:*", "-zadd", "-xadd") as client:
        commands = await refused_commands(client)
        assert [line.rpartition("ACL ")[2] for line in commands] == ["SETUSER app +xadd", "SETUSER app +zadd"]
        lines = await refused_channels(client, ["trade:*", "numbers"])
        assert [line.rpartition(" ")[2] for line in lines] == ["&ws:*", "&trade:*", "&numbers"]
    async with user(own_server, *ALL, "resetchannels", "-publish") as client:
        lines = await refused_channels(client)
        assert [line.rpartition(" ")[2] for line in lines] == ["+publish", "&{cachebus}:*", "&ws:*"]
    async with user(own_server, "on", ">pw", "~other:*", "&*", "+@all") as client:
        (line,) = await refused_commands(client)
        assert "ACL SETUSER app ~{cachebus}:* ~cachebus:*" in line


async def test_older_servers_refuse_a_script_in_other_words(acl_server: tuple[int, str]) -> None:
    """Redis up to 7.0 names neither NOPERM nor the command; it is found all the same."""
    port, url = acl_server
    ask(port, "ACL", "SETUSER", "app", "reset", *ALL, "&*", "-zadd", "-xadd")
    async with Client(url.replace("redis://", "redis://app:pw@")) as client:
        commands = await refused_commands(client)
    assert [line.rpartition("ACL ")[2] for line in commands] == ["SETUSER app +xadd", "SETUSER app +zadd"]


def test_every_command_of_every_script_is_tried() -> None:
    """Whoever adds a command to a script adds it to `try_commands.lua`."""
    library = Path(cachebus.__file__).parent
    tried = set(re.findall(r"\{ '([A-Z]+)'", (library / "bus/lua/try_commands.lua").read_text()))
    used = {
        command
        for path in library.rglob("*.lua")
        for command in re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())
    }
    assert used - tried == {"PUBLISH"}, "channels are tried by subscribing"
