"""The outbox: an event is published if, and only if, the transaction it was written in committed; and once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.errors import ConfigurationError, PublishRefused
from cachebus.integrations.sqlalchemy.outbox import Outbox
from cachebus.integrations.sqlalchemy.relay import Relay
from cachebus.redis.client import Client
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from cachebus.worker.loading import find_outbox
from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[2]
BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))]
POSTGRESQL = [BOTH[1]]

metadata = MetaData()
numbers = Table("numbers", metadata, Column("n", Integer, primary_key=True))
Until = Callable[..., Any]
Payloads = Callable[[], list[bytes]]


class Shop:
    """An application's database with an outbox."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: AsyncEngine = create_async_engine(url)
        self.metadata = MetaData()
        self.outbox = Outbox(self.metadata, lambda: self.engine)

    async def save(self, *values: int, roll_back: bool = False, **given: Any) -> None:
        """Write numbers and an event of each, in one transaction."""
        async with AsyncSession(self.engine) as session:
            for n in values:
                await session.execute(insert(numbers).values(n=n))
                await session.execute(self.outbox.insert("numbers", {"n": n}, **given))
            await (session.rollback() if roll_back else session.commit())

    async def rows(self) -> list[tuple[str, str | None]]:
        """What is in the outbox: payload and problem."""
        columns = self.outbox.table.c
        async with self.engine.connect() as connection:
            found = await connection.execute(select(columns.payload, columns.problem).order_by(columns.seq))
            return [(row.payload, row.problem) for row in found]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the session; started only when a test wants it."""
    with Postgres.running() as running:
        yield running


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if getattr(request, "param", "sqlite") == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        with server.database() as url:
            yield url.replace("postgresql://", "postgresql+asyncpg://")
    else:
        yield f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    """A database with the tables."""
    made = Shop(database_url)
    async with made.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.run_sync(made.metadata.create_all)
    yield made
    await made.engine.dispose()


@pytest.fixture
def payloads(server: PrivateServer, client: Client) -> Payloads:
    """What is in the stream of events."""
    stream = client.names.bus("events", "0")
    return lambda: [fields[3] for _, fields in server.ask("XRANGE", stream, "-", "+")]


@contextlib.asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    """Run relays or consumers, and drain them at the end."""
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for part in parts:
            await part.drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def expected(*values: int) -> list[bytes]:
    """Return the payloads of these numbers."""
    return [msgspec.json.encode({"n": n}) for n in values]


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_an_event_arrives_with_its_data(shop: Shop, client: Client, until: Until) -> None:
    """A handler gets what was committed with the data, in order, and the outbox is empty then."""
    got: list[tuple[int, int]] = []

    @on("numbers", name="seen")
    async def seen(event: Any) -> None:
        async with shop.engine.connect() as connection:
            stored = await connection.scalar(select(func.count()).select_from(numbers).where(numbers.c.n == event["n"]))
        got.append((event["n"], stored))

    relay = Relay(shop.outbox, Bus(client), poll="20ms")
    async with running(relay, Consumer(client, [seen], worker="w")):
        await shop.save(1, 2, 3)
        await until(lambda: len(got) == 3)
    assert got == [(1, 1), (2, 1), (3, 1)]
    assert await shop.rows() == []
    assert relay.stats.relayed == 3


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_what_is_rolled_back_never_arrives(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """Neither the number nor its event is there; what is committed after it is."""
    async with running(Relay(shop.outbox, Bus(client), poll="20ms")):
        await shop.save(1, roll_back=True)
        await shop.save(2)
        await until(payloads)
    assert payloads() == expected(2)


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_a_delay_counts_from_when_the_row_was_written(
    shop: Shop, client: Client, until: Until, payloads: Payloads
) -> None:
    """What waited longer than its delay, while no relay ran, is published at once; what is left of others is kept."""
    await shop.save(1, delay="1h")
    await shop.save(2, delay="4h")
    table = shop.outbox.table
    async with shop.engine.begin() as connection:
        written = await connection.scalar(select(func.now()))
        await connection.execute(update(table).values(created_at=written - datetime.timedelta(hours=3)))
    relay = Relay(shop.outbox, Bus(client), poll="20ms")
    async with running(relay):
        await until(lambda: relay.stats.relayed == 2)
    assert payloads() == expected(1)
    _, due_us = await client.store.call("ZRANGE", client.names.bus("delayed"), 0, -1, "WITHSCORES")
    assert 59 * 60 < float(due_us) / 1e6 - client.now_us() / 1e6 < 62 * 60
    with pytest.raises(PublishRefused, match=r"delay: '-1s' is in the past"):
        shop.outbox.insert("numbers", {}, delay="-1s")


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_two_relays_do_not_publish_twice(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """Several workers, several batches: each event once, in the order of the rows."""
    relays = [Relay(shop.outbox, Bus(client), poll="10ms") for _ in range(2)]
    await shop.save(*range(250))
    async with running(*relays):
        await until(lambda: len(payloads()) >= 250)
    assert payloads() == expected(*range(250))
    assert await shop.rows() == []


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_a_relay_that_dies_before_it_deletes_leaves_one_event(
    shop: Shop, client: Client, server: PrivateServer, until: Until, payloads: Payloads
) -> None:
    """kill -9 after publishing: the next one publishes the same id, and the bus drops it."""
    await shop.save(1)
    arguments = (str(ROOT / "tests/support/outbox_process.py"), shop.url, server.url, client.names.namespace)
    dying = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments), stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert dying.stdout is not None
    async with asyncio.timeout(30):
        assert await dying.stdout.readline() == b"published\n"
    dying.send_signal(signal.SIGKILL)
    await dying.wait()
    assert payloads() == expected(1)
    assert len(await shop.rows()) == 1
    relay = Relay(shop.outbox, Bus(client), poll="20ms")
    async with running(relay):
        await until(lambda: relay.stats.relayed == 1)
    assert payloads() == expected(1)
    assert await shop.rows() == []


async def listeners(shop: Shop) -> list[int]:
    """Return the PostgreSQL processes of connections that listen."""
    async with shop.engine.connect() as connection:
        found = text("SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
        return list(await connection.scalars(found))


async def listens_anew(shop: Shop, before: list[int]) -> bool:
    """Return whether another connection than before listens."""
    return bool(now := await listeners(shop)) and now != before


@pytest.mark.parametrize("database_url", POSTGRESQL, indirect=True)
async def test_postgresql_wakes_the_relay(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """With an hour between looks, an event goes out at once; also after the listening connection was cut."""
    relay = Relay(shop.outbox, Bus(client), poll="1h")
    async with running(relay):
        await until(lambda: relay.listening)
        await shop.save(1)
        await until(lambda: payloads() == expected(1))
        before = await listeners(shop)
        async with shop.engine.begin() as connection:
            await connection.execute(select(func.pg_terminate_backend(*before)))
        await until(lambda: listens_anew(shop, before))
        await shop.save(2)
        await until(lambda: payloads() == expected(1, 2))


@pytest.mark.parametrize("database_url", POSTGRESQL, indirect=True)
async def test_on_postgresql_one_relay_works_at_a_time(shop: Shop, client: Client, payloads: Payloads) -> None:
    """While one has a batch in hand, another leaves the rows to it; it takes over when the first is gone."""
    relay = Relay(shop.outbox, Bus(client))
    await shop.save(1)
    async with shop.engine.begin() as other:
        await other.execute(select(func.pg_advisory_xact_lock(relay._lock)))
        await relay._step()
        assert payloads() == []
    await relay._step()
    assert payloads() == expected(1)
    await relay._stop_listening()


@pytest.mark.parametrize("database_url", POSTGRESQL, indirect=True)
async def test_a_lower_number_may_commit_later(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """A transaction that is still open while a later row is relayed is not passed over."""
    async with running(Relay(shop.outbox, Bus(client), poll="20ms")), shop.engine.connect() as slow:
        await slow.execute(shop.outbox.insert("numbers", {"n": 1}))
        await shop.save(2)
        await until(lambda: payloads() == expected(2))
        await slow.commit()
        await until(lambda: payloads() == expected(2, 1))


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_a_row_that_cannot_be_published_blocks_nobody(
    shop: Shop, client: Client, until: Until, payloads: Payloads, caplog: pytest.LogCaptureFixture
) -> None:
    """What another program wrote and the bus refuses stays, with the reason; the others go out."""
    async with shop.engine.begin() as connection:
        await connection.execute(insert(shop.outbox.table).values(id="x", channel="numbers", payload="no json"))
    await shop.save(2)
    relay = Relay(shop.outbox, Bus(client), poll="20ms")
    async with running(relay):
        await until(lambda: relay.stats.relayed == 1)
    assert payloads() == expected(2)
    ((payload, problem),) = await shop.rows()
    assert payload == "no json"
    assert problem is not None
    assert "not JSON" in problem
    assert relay.stats.refused == 1
    assert "can never be published" in caplog.text


async def test_it_waits_while_redis_is_away(
    shop: Shop,
    server: PrivateServer,
    client: Client,
    until: Until,
    payloads: Payloads,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is lost, nothing goes out of order, and the log has one line for it and one for its end."""
    caplog.set_level(logging.INFO, "cachebus")
    async with (
        FaultProxy(server.port) as proxy,
        Client(proxy.url, namespace=client.names.namespace) as behind,
        running(relay := Relay(shop.outbox, Impatient(behind), poll="20ms")),
    ):
        proxy.refusing = True
        proxy.cut()
        await shop.save(1, 2)
        await until(lambda: relay.problem)
        await until(lambda: relay.stats.waiting == 2)
        proxy.resume()
        await until(lambda: len(payloads()) == 2)
        await until(lambda: not relay.problem)
    assert payloads() == expected(1, 2)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("outbox")]
    assert ["are not published" in said[0], "resumed" in said[1], len(said)] == [True, True, 2]


async def test_a_full_stream_is_waited_out(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """Rows stay without a problem of their own, and go out in order as there is room."""
    await shop.save(1, 2, 3)
    relay = Relay(shop.outbox, Bus(client, max_events=2), poll="20ms")
    async with running(relay):
        await until(lambda: relay.problem.startswith("StreamFull"))
        assert payloads() == expected(1, 2)
        assert await shop.rows() == [('{"n":3}', None)]
        await client.store.call("XTRIM", client.names.bus("events", "0"), "MAXLEN", 1)
        await until(lambda: payloads() == expected(2, 3))
    assert (relay.stats.relayed, relay.stats.refused) == (3, 0)


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_it_says_how_many_wait_and_how_long(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """All of a backlog longer than a batch is counted; its lag is the oldest row's, and nothing once all are out."""
    written = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    await shop.save(*range(149))
    async with shop.engine.begin() as connection:
        oldest = select(func.min(shop.outbox.table.c.seq)).scalar_subquery()
        hour_ago = update(shop.outbox.table).values(created_at=written)
        await connection.execute(hour_ago.where(shop.outbox.table.c.seq == oldest))
    bus = Bus(client, max_events=149)
    await bus.publish_many("other", [{}] * 149)
    relay = Relay(shop.outbox, bus, poll="20ms")
    async with running(relay):
        await until(lambda: relay.problem)
        assert relay.stats.waiting == 149
        assert 3599 <= relay.stats.lag_s < 3900  # SQLite cuts fractions of a second
        await client.store.call("XTRIM", client.names.bus("events", "0"), "MAXLEN", 0)
        await until(lambda: payloads() == expected(*range(149)))
        await until(lambda: relay.stats.relayed == 149)
    assert (relay.stats.waiting, relay.stats.lag_s) == (0, 0.0)


async def test_a_time_of_another_form_holds_up_nobody(
    shop: Shop, client: Client, until: Until, payloads: Payloads
) -> None:
    """SQLite takes any text for a time; the row is published all the same."""
    await shop.save(1, 2)
    async with shop.engine.begin() as connection:
        await connection.execute(text("UPDATE cachebus_outbox SET created_at = 'now and then'"))
    async with running(relay := Relay(shop.outbox, Bus(client), poll="20ms")):
        await until(lambda: payloads() == expected(1, 2))
        assert relay.problem == ""


async def test_what_only_the_bus_refuses_blocks_nobody(
    shop: Shop, client: Client, until: Until, payloads: Payloads
) -> None:
    """An outbox that takes longer payloads than the bus: the long one stays with the reason, the next goes out."""
    await shop.save(1_000_000_000_000, 2)
    relay = Relay(shop.outbox, Bus(client, max_payload_bytes=10), poll="20ms")
    async with running(relay):
        await until(lambda: relay.stats.refused == 1)
        await until(lambda: payloads() == expected(2))
    ((_, problem),) = await shop.rows()
    assert problem is not None
    assert "the limit is 10" in problem


@pytest.mark.parametrize("database_url", BOTH, indirect=True)
async def test_the_database_may_be_away(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """A table that is not there yet is waited for."""
    async with shop.engine.begin() as connection:
        await connection.run_sync(shop.metadata.drop_all)
    relay = Relay(shop.outbox, Bus(client), poll="20ms")
    async with running(relay):
        await until(lambda: "cachebus_outbox" in relay.problem)  # "no such table", "does not exist"
        async with shop.engine.begin() as connection:
            await connection.run_sync(shop.metadata.create_all)
        await shop.save(1)
        await until(lambda: payloads() == expected(1))


async def test_a_repeated_id_is_one_event(shop: Shop, client: Client, until: Until, payloads: Payloads) -> None:
    """A request that is repeated may write its event again, before or after the first went out."""
    relay = Relay(shop.outbox, Bus(client), poll="20ms")
    await shop.save(1, id="order-7")
    await shop.save(2, id="order-7")
    async with running(relay):
        await until(lambda: relay.stats.relayed == 2)
        await shop.save(3, id="order-7")
        await until(lambda: relay.stats.relayed == 3)
    assert payloads() == expected(1)


def test_a_plain_session_writes_too(tmp_path: Path) -> None:
    """Flask and Django's neighbours need no event loop to write an event."""
    shop = Shop(f"sqlite+aiosqlite:///{tmp_path / 'plain.db'}")
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    shop.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.execute(shop.outbox.insert("numbers", {"n": 1}, key="k"))
    with engine.connect() as connection:
        row = connection.execute(select(shop.outbox.table)).one()
    engine.dispose()
    assert (row.channel, row.payload, row.key, row.problem) == ("numbers", '{"n":1}', "k", None)


def test_what_can_never_be_published_is_refused_at_once(tmp_path: Path) -> None:
    """The mistake shows where it is made, before anything is written."""
    outbox = Outbox(MetaData(), lambda: create_async_engine("sqlite+aiosqlite://"), max_payload_bytes=10)
    for channel, payload, given in [("ws:x", 1, {}), ("numbers", "x" * 20, {}), ("numbers", 1, {"id": ""})]:
        with pytest.raises(PublishRefused):
            outbox.insert(channel, payload, **given)  # type: ignore[arg-type]  # the ids of the table above
    with pytest.raises(ConfigurationError):
        Outbox(MetaData(), lambda: create_async_engine("sqlite+aiosqlite://"), name="Not; good")


SHOP = """
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from cachebus import Cache
from cachebus.integrations.sqlalchemy.outbox import Outbox

cache = Cache.from_env()
engine = create_async_engine({url!r})
outbox = Outbox(MetaData(), lambda: engine)
"""


async def test_a_worker_publishes_what_its_outbox_holds(
    shop: Shop, server: PrivateServer, client: Client, until: Until, payloads: Payloads, tmp_path: Path
) -> None:
    """`OUTBOX=shop_tables:outbox python -m worker`; its pages tell of it, and SIGTERM ends it cleanly."""
    async with shop.engine.begin() as connection:
        await connection.run_sync(shop.metadata.drop_all)
    (tmp_path / "shop_tables.py").write_text(SHOP.format(url=shop.url))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port)}
    environment |= {"PYTHONPATH": f"{ROOT}:{tmp_path}", "HANDLERS": ",", "SCHEDULES": ","}
    environment |= {"CACHE": "shop_tables:cache", "OUTBOX": "shop_tables:outbox"}
    environment |= {"REDIS_URL": server.url, "CACHE_NAMESPACE": client.names.namespace}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:

            async def told(word: str, why: str) -> Any:
                with contextlib.suppress(httpx.TransportError):  # it is only starting
                    said = (await http.get("/readyz")).json()
                    return said if said["word"] == word and why in said["why"] else None

            await until(lambda: told("waiting", "no such table: cachebus_outbox"))
            async with shop.engine.begin() as connection:
                await connection.run_sync(shop.metadata.create_all)
            await shop.save(1)
            await until(lambda: payloads() == expected(1))
            said = await until(lambda: told("ready", ""))
            assert said["outbox"] == {"relayed": 1, "refused": 0, "waiting": 0, "lag_s": 0.0}
            metrics = (await http.get("/metrics")).text
        for line in ("relayed_total 1.0", "refused_total 0.0", "waiting 0.0", "lag_seconds 0.0"):
            assert f"\ncachebus_outbox_{line}\n" in metrics
        worker.terminate()
        async with asyncio.timeout(30):
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    assert await shop.rows() == []


def test_what_is_no_outbox_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that leads to something else keeps the worker from starting."""
    (tmp_path / "outbox_of_nobody.py").write_text("outbox = 7")
    monkeypatch.syspath_prepend(tmp_path)
    problems: list[str] = []
    assert find_outbox("OUTBOX", ("outbox_of_nobody", "outbox"), problems) is None
    assert problems == ["OUTBOX: 'outbox' in outbox_of_nobody is int, not an Outbox"]


class Impatient(Bus):
    """A bus that does not try for five seconds."""

    async def publish(self, channel: str, event: Any, **given: Any) -> str:
        return await super().publish(channel, event, **given, timeout="200ms")
