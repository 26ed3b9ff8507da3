"""The dashboard's application over HTTP: who may see what, what a change does, and what goes on without Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import select

from cachebus import CacheSettings
from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer
from tests.tradesense.conftest import World
from tradesense import recording, views
from tradesense.tables import outbox
from tradesense.web import changes, sign_in
from tradesense.web.app import app

TRADE = {"symbol": "AAPL", "side": "buy", "quantity": 10, "price": "430.25"}
READS = ("me", "settings", "portfolio", "analytics", "risk", "trades")


@pytest.fixture
def url(server: PrivateServer) -> str:
    """Where Redis is."""
    return server.url


@pytest.fixture
async def visitor(
    url: str, namespace: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that nobody has signed in with."""
    monkeypatch.setattr(views.cache, "_settings", CacheSettings(url=url, namespace=namespace))
    monkeypatch.setattr(views.cache, "_names", Names(namespace))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test/api/") as client,
    ):
        yield client


@pytest.fixture
async def user(visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    """The browser of user 7."""
    assert (await visitor.post("session", json={"user_id": 7})).status_code == 204
    return visitor


async def waiting() -> list[str]:
    """Return the ids of the events in the outbox."""
    async with views.queries.database.reading() as connection:
        return list(await connection.scalars(select(outbox.table.c.id).order_by(outbox.table.c.seq)))


async def test_everybody_sees_their_own_figures_and_nobody_those_of_others(visitor: httpx.AsyncClient) -> None:
    """401 for nobody; 404 for who does not exist; after signing out 401 again."""
    assert {(await visitor.get(path)).status_code for path in READS} == {401}
    assert (await visitor.post("session", json={"user_id": 999_999})).json() == {
        "detail": "user_id: 999999 does not exist"
    }
    for user_id in (7, 8):
        await visitor.post("session", json={"user_id": user_id})
        assert (await visitor.get("me")).json()["user_id"] == user_id
        assert (await visitor.get("portfolio")).json()["user_id"] == user_id
    assert (await visitor.get("trades")).headers["cache-control"] == "no-store"
    assert (await visitor.delete("session")).status_code == 204
    assert (await visitor.get("portfolio")).status_code == 401
    assert [person["user_id"] for person in (await visitor.get("people", params={"named": "7"})).json()] == [7]


async def test_signing_in_is_limited(visitor: httpx.AsyncClient) -> None:
    """The twenty-first time in a minute it is refused, and says how long."""
    tried = [await visitor.post("session", json={"user_id": 0}) for _ in range(21)]
    assert [each.status_code for each in tried] == [422] * 20 + [429]
    assert int(tried[-1].headers["retry-after"]) > 0


async def test_a_change_is_read_at_once_and_told_once(user: httpx.AsyncClient, server: PrivateServer) -> None:
    """No worker is needed to read it; its event lies in the outbox as well, under the id that was published."""
    before = (await user.get("portfolio")).json()["trades"]
    made = await user.post("trades", json=TRADE)
    assert (made.status_code, made.headers["fresh-after"] != "") == (201, True)
    assert (await user.get("portfolio")).json()["trades"] == before + 1
    assert (await user.patch("settings", json={"grouping": "day", "theme": "dark"})).status_code == 204
    assert (await user.get("settings")).json()["grouping"] == "day"
    stream = server.ask("XRANGE", f"{{{views.cache.names.namespace}}}:events:0", "-", "+")
    published = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in stream]
    assert [each[b"id"].decode() for each in published] == await waiting()
    assert [each[b"channel"] for each in published] == [b"trade:updates", b"settings:updates"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"price": "0.001"}, "price: 0.001 has fractions of a cent; give two decimals"),
        ({"symbol": "NOPE"}, "symbol: 'NOPE' does not exist"),
        ({"quantity": "many"}, "quantity: Input should be a valid integer, unable to parse string as an integer"),
    ],
)
async def test_what_cannot_be_recorded_is_named(user: httpx.AsyncClient, change: dict[str, str], said: str) -> None:
    """The field, and what it may be; nothing is told."""
    refused = await user.post("trades", json={**TRADE, **change})
    assert (refused.status_code, refused.json()) == (422, {"detail": said})
    assert await waiting() == []


async def test_the_bare_database_answers_the_same(user: httpx.AsyncClient) -> None:
    """It is loaded whatever the cache has, and whatever the browser has heard; nothing of it is stored."""
    clock = await views.cache.invalidate(tags=["anything"])
    for path in ("portfolio", "market/AAPL"):
        known = await user.get(path)
        bare = await user.get(f"{path}?bare=true", headers={"Fresh-After": clock})
        again = await user.get(path)
        assert bare.content == known.content == again.content
        assert bare.headers["cache-status"] == "cachebus; fwd=miss"
        assert again.headers["cache-status"].endswith("detail=memory")
        assert float(bare.headers["server-timing"].removeprefix("app;dur=")) > 0
    assert (await user.get("market/NOPE")).status_code == 404


async def test_an_import_is_refused_by_row_or_while_another_one_runs(
    user: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """422 names rows and fields, 409 the other import, 413 the size; then it is imported in steps."""
    count = await recording.count_trades(7)
    file = "symbol,side,quantity,price\nFB,buy,1,27.50\nFB,buy,1,cheap\n"
    refused = await user.post("imports", content=file)
    assert (refused.status_code, refused.json()["problems"][0]["row"]) == (422, 2)
    good = file.replace("cheap", "27.75")
    async with changes.locks.lock("import:user:7"):
        assert (await user.post("imports", content=good)).status_code == 409
    assert await recording.count_trades(7) == count
    done = (await user.post("imports", content=good)).text.splitlines()
    assert [line[:10] for line in done] == ['{"checked"', '{"written"', '{"imported']
    assert await recording.count_trades(7) == count + 2
    monkeypatch.setattr(changes, "MOST_BYTES", 10)
    assert (await user.post("imports", content=good)).status_code == 413


class TestOutage:
    """Redis ends while somebody is signed in."""

    @pytest.fixture
    def url(self, own_server: PrivateServer) -> str:
        """One that may be killed."""
        return own_server.url

    async def test_who_was_signed_in_goes_on(
        self, user: httpx.AsyncClient, own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Figures are read, a trade is recorded and its event waits; who comes anew, or was idle too long, gets 503."""
        before = (await user.get("portfolio")).json()["trades"]
        own_server.kill()
        assert (await user.post("trades", json=TRADE)).status_code == 201
        assert (await user.get("portfolio")).json()["trades"] == before + 1
        assert len(await waiting()) == 1
        assert (await user.get("status")).json()["redis"] is False
        assert (await user.post("imports", content="symbol,side,quantity,price\nFB,buy,1,27.50")).status_code == 503
        stranger = await user.get("portfolio", headers={"Cookie": f"{sign_in.COOKIE}={'x' * 64}"})
        assert stranger.status_code == 503
        monkeypatch.setattr(sign_in, "monotonic", lambda: 1e12)
        assert (await user.get("portfolio")).status_code == 503
