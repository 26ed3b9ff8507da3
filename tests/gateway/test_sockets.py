"""Real sockets: who is let in, what arrives, and what is refused with which code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cachebus import Client
from cachebus.gateway import ConnectionLimits, live_app
from cachebus.gateway.protocol import MOST_FRAMES
from cachebus.gateway.transports import websocket
from cachebus.monitoring.sockets import open_sockets
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.gateway_site import COOKIE, Site, hear
from tests.support.waiting import until

ELSEWHERE = "https://evil.example"


@pytest.fixture
async def site(client: Client) -> AsyncIterator[Site]:
    """A gateway of this test's deployment."""
    async with Site(client, origins=["https://app.example.com"]).running() as running:
        yield running


async def closed(opened: ClientConnection) -> int:
    """Read until the other side closes; return the code."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await opened.recv()
    assert opened.close_code is not None
    return opened.close_code


async def test_a_message_arrives_in_the_stated_form(site: Site) -> None:
    """A broadcast reaches who follows its topic: version, id, type, topic, time, data, and the clock to read after."""
    async with site.socket("user:42") as opened:
        welcome = await hear(opened)
        assert welcome["type"] == "gateway.welcome"
        assert welcome["data"]["recovered"] is False
        (identity,) = await site.broadcast("user:42")
        said = await hear(opened)
        assert said["id"] == identity
        assert list(said) == ["v", "id", "ts", "fresh_after", "topic", "type", "data"]
        assert (said["v"], said["topic"], said["type"], said["fresh_after"]) == (1, "user:42", "test.hint", "1000")


async def test_a_gateway_tells_its_sockets_when_asked(site: Site) -> None:
    """User, topics, what waits, the last message, since when; of one user or of all; rubbish is not answered."""
    client = site.client
    for rubbish in (b"", b"{}", b'{"token": "*"}', b"\xff"):
        await client.store.call("PUBLISH", client.names.bus("sockets"), rubbish)
    before_ms = time.time_ns() // 1_000_000
    async with site.socket("user:42", "market:AAPL") as one, site.socket(user_id=7) as other:
        await hear(one)
        await hear(other)
        (identity,) = await site.broadcast("market:AAPL")
        await hear(one)
        (gateway,) = await open_sockets(client)
        assert (gateway.sockets, gateway.answered, gateway.reported_ms_ago) == (2, True, 0)
        (told,) = (each for each in gateway.open if each.user == "42")
        assert (told.topics, told.more_topics, told.queued, told.last) == (["market:AAPL", "user:42"], 0, 0, identity)
        assert before_ms <= told.since_ms <= time.time_ns() // 1_000_000
        assert {each.user for each in gateway.open} == {"42", "7"}
        (of_one,) = await open_sockets(client, "7")
        assert [each.user for each in of_one.open] == ["7"]


async def test_only_what_is_followed_arrives(site: Site) -> None:
    """Other topics are not sent; subscribing and unsubscribing hold from then on."""
    async with site.socket("user:42") as opened:
        await hear(opened)
        await opened.send('{"op": "subscribe", "topics": ["market:AAPL"]}')
        assert (await hear(opened))["data"]["topics"] == ["market:AAPL", "user:42"]
        await opened.send('{"op": "unsubscribe", "topics": ["user:42"]}')
        assert (await hear(opened))["data"]["topics"] == ["market:AAPL"]
        await site.broadcast("user:42")
        await site.broadcast("market:MSFT")
        await site.broadcast("market:AAPL")
        assert (await hear(opened))["topic"] == "market:AAPL"


async def test_of_another_user_nothing_is_heard(site: Site) -> None:
    """Following another user's topic, or one that no rule names, is answered with an error that says which and why."""
    async with site.socket("user:43", "user:42", "admin:all", "user:4") as opened:
        assert (await hear(opened))["data"]["topics"] == ["user:42"]
        refused = [(await hear(opened, "gateway.error"))["data"] for _ in range(3)]
        assert [(error["code"], error["topic"]) for error in refused] == [
            ("forbidden", "user:43"),
            ("forbidden", "admin:all"),
            ("forbidden", "user:4"),
        ]
        await site.broadcast("user:43")
        await site.broadcast("user:42")
        assert (await hear(opened))["topic"] == "user:42"


async def test_what_was_missed_arrives_once_and_in_order(site: Site) -> None:
    """Who comes back with its last id gets what it missed, then what comes; the welcome says so."""
    async with site.socket("user:42") as opened:
        await hear(opened)
        (last,) = await site.broadcast("user:42")
        await hear(opened, "test.hint")
    missed = await site.broadcast("user:42", 3)
    await until(lambda: site.gateway.hub.window.newest == missed[-1], "the gateway hearing it")
    async with site.socket("user:42", last=last) as opened:
        assert (await hear(opened))["data"]["recovered"] is True
        missed += await site.broadcast("user:42")
        assert [(await hear(opened))["id"] for _ in range(4)] == missed


async def test_a_gateway_that_has_just_started_reads_back(client: Client) -> None:
    """After a restart of the gateway nothing is missing: the feed is asked for what memory does not have."""
    async with Site(client).running() as first:
        (last, *missed) = await first.broadcast("user:42", 5)
    async with Site(client).running() as second, second.socket("user:42", last=last) as opened:
        assert (await hear(opened))["data"]["recovered"] is True
        assert [(await hear(opened))["id"] for _ in range(4)] == missed


async def test_an_unknown_id_is_said_to_be_unknown(site: Site) -> None:
    """An id of another epoch, or no id at all, is answered with recovered: false and the newest id."""
    (newest,) = await site.broadcast("user:42")
    await until(lambda: site.gateway.hub.window.newest == newest, "the gateway hearing it")
    for last in ("6-1001", "nonsense", "", "7-99999999"):
        async with site.socket("user:42", last=last) as opened:
            welcome = await hear(opened)
            assert (welcome["data"]["recovered"], welcome["id"]) == (False, newest)


async def test_who_is_connected_is_told_when_the_gateway_is_cut_off(own_server: PrivateServer) -> None:
    """Away; then back, and what was missed, all on the same connection."""
    async with (
        FaultProxy(own_server.port) as proxy,
        Client(proxy.url) as client,
        Client(own_server.url) as elsewhere,
        Site(client).running() as site,
    ):
        other = Site(elsewhere)
        async with site.socket("user:42") as opened, site.socket("user:42") as second:
            for each in (opened, second):
                await hear(each, "gateway.welcome")
            proxy.black_hole()
            for each in (opened, second):
                await hear(each, "gateway.away")
            missed = await other.broadcast("user:42", 3)
            proxy.resume()
            for each in (opened, second):
                await hear(each, "gateway.back")
                assert [(await hear(each))["id"] for _ in range(3)] == missed
            assert site.gateway.hub.counts["reset"] == 0


async def test_a_hole_in_the_feed_is_told_to_everyone(site: Site) -> None:
    """A feed that began anew: every client hears recovered: false, and then the new messages."""
    *_, newest = await site.broadcast("user:42", 3)
    await until(lambda: site.gateway.hub.window.newest == newest, "the gateway hearing it")
    async with site.socket("user:42") as opened:
        await hear(opened, "gateway.welcome")
        await site.client.store.call("DEL", site.client.names.feed)
        assert (await hear(opened, "gateway.reset"))["data"]["recovered"] is False
        (identity,) = await site.broadcast("user:42")
        assert (await hear(opened, "test.hint"))["id"] == identity


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "https://app.example.com.evil.example"])
async def test_another_site_is_refused_before_the_handshake(
    site: Site, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of another site gets 403 everywhere, though the browser sends the cookie; an allowed one gets in."""
    headers = {"Cookie": f"{COOKIE}={await site.cookie()}", "Origin": origin}
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{site.port}/ws", additional_headers=headers)
    assert refused.value.response.status_code == 403
    async with httpx.AsyncClient(base_url=site.url, headers=headers, timeout=30) as http:
        assert (await http.get("/events?topics=user:42")).status_code == 403
        assert (await http.post("/ticket")).status_code == 403
        headers["Origin"] = "https://app.example.com"
        assert (await http.post("/ticket", headers=headers)).status_code == 200
    assert "handshake" not in caplog.text, "strangers fill no log"


async def test_without_a_session_nobody_is_let_in(site: Site) -> None:
    """No cookie, a made-up one, an ended session: 4401 on the socket, 401 on the stream and for tickets."""
    ended = await site.cookie()
    await site.sessions.invalidate(ended)
    async with httpx.AsyncClient(base_url=site.url, timeout=30) as http:
        for cookie in ("", "x" * 64, ended):
            headers = {"Cookie": f"{COOKIE}={cookie}"}
            async with connect(f"ws://127.0.0.1:{site.port}/ws", additional_headers=headers) as opened:
                await opened.send('{"op": "hello", "topics": ["market:AAPL"]}')
                assert await closed(opened) == 4401
            assert (await http.get("/events?topics=market:AAPL", headers=headers)).status_code == 401
            assert (await http.post("/ticket", headers=headers)).status_code == 401


async def test_a_session_that_ends_takes_its_sockets_along(site: Site) -> None:
    """Logging out closes the user's open sockets with 4401; other users' stay."""
    async with site.socket("user:42") as opened, site.socket("user:43", user_id=43) as other:
        await hear(opened)
        await hear(other)
        await site.sessions.invalidate_user(42)
        await site.gateway.look_at_sessions()
        assert await closed(opened) == 4401
        await site.broadcast("user:43")
        assert (await hear(other))["topic"] == "user:43"


async def test_a_ticket_works_once(site: Site) -> None:
    """A ticket lets its user in without a cookie, once; a used one, or one of an ended session, does not."""
    session = await site.cookie()
    async with httpx.AsyncClient(base_url=site.url, headers={"Cookie": f"{COOKIE}={session}"}, timeout=30) as http:
        ticket, late = [(await http.post("/ticket")).json()["ticket"] for _ in range(2)]
    async with connect(f"ws://127.0.0.1:{site.port}/ws") as opened:
        await opened.send(json.dumps({"op": "hello", "topics": ["user:42"], "ticket": ticket}))
        assert (await hear(opened))["data"]["topics"] == ["user:42"]
    async with httpx.AsyncClient(base_url=site.url, timeout=30) as http:
        assert (await http.get(f"/events?topics=user:42&ticket={ticket}")).status_code == 401
        await site.sessions.invalidate(session)
        assert (await http.get(f"/events?topics=user:42&ticket={late}")).status_code == 401


async def test_frames_that_cannot_be_read_are_answered(site: Site) -> None:
    """Broken JSON, an unknown operation, a wrong type: an error that names it, and the connection stays."""
    async with site.socket("user:42") as opened:
        await hear(opened)
        for frame, named in (
            ("{", "truncated"),
            ('{"op": "delete"}', "delete"),
            ('{"op": "subscribe", "topics": 7}', "topics"),
            ('{"op": "hello"}', "already"),
        ):
            await opened.send(frame)
            error = (await hear(opened))["data"]
            assert error["code"] == "malformed"
            assert named in error["reason"]
        await opened.send(json.dumps({"op": "subscribe", "topics": [f"market:{n}" for n in range(101)]}))
        assert len((await hear(opened))["data"]["topics"]) == 100
        assert (await hear(opened))["data"]["code"] == "too_many_topics"


async def test_a_large_frame_closes(site: Site) -> None:
    """A frame of more than 4096 bytes: closed with 1009."""
    async with site.socket("user:42") as opened:
        await hear(opened)
        await opened.send(json.dumps({"op": "subscribe", "topics": ["market:" + "x" * 5000]}))
        assert await closed(opened) == 1009


async def test_a_flood_of_frames_closes(site: Site) -> None:
    """Hundreds of frames at once: closed with 4429."""
    async with site.socket("user:42") as opened:
        for _ in range(300):
            await opened.send('{"op": "subscribe", "topics": []}')
        assert await closed(opened) == 4429


async def test_who_says_nothing_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket without a hello is closed with 4408; one whose first frame is something else, with 4400."""
    async with connect(f"ws://127.0.0.1:{site.port}/ws") as opened:
        await opened.send('{"op": "subscribe", "topics": []}')
        assert await closed(opened) == 4400
    monkeypatch.setattr(websocket, "HELLO_S", 0.05)
    async with connect(f"ws://127.0.0.1:{site.port}/ws") as opened:
        assert await closed(opened) == 4408


async def test_headers_that_never_end_are_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that trickles in is answered with 408 and closed, however lively it trickles."""
    monkeypatch.setattr("cachebus.process.patient_http.HEADERS_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /events HTTP/1.1\r\nhost: x\r\n")
    answer = asyncio.ensure_future(reader.readline())
    async with asyncio.timeout(20):
        while not answer.done():
            writer.write(b"x-more: 1\r\n")
            await asyncio.sleep(0.01)
        assert answer.result().startswith(b"HTTP/1.1 408 ")
        with contextlib.suppress(ConnectionResetError):  # where a line crossed the end
            await reader.read()
    writer.close()


async def test_a_full_gateway_says_so(client: Client) -> None:
    """One client too many is refused with 503 before the handshake."""
    async with Site(client, limits=ConnectionLimits(in_all=1)).running() as site, site.socket("user:42") as opened:
        await hear(opened)
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{site.port}/ws")
        assert refused.value.response.status_code == 503


async def test_a_gateway_that_stops_sends_everyone_away(client: Client) -> None:
    """Stopping closes every client with 1012, one after the other, and lets nobody in meanwhile."""
    site = Site(client)
    async with site.running(), site.socket("user:42") as opened, site.socket("user:42") as second:
        await hear(opened)
        await hear(second)
        draining = asyncio.create_task(site.gateway.drain(0.1))
        assert {await closed(opened), await closed(second)} == {1012}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{site.port}/ws")
        assert refused.value.response.status_code == 503
        await draining


async def test_events_stream_resumes(site: Site) -> None:
    """Server-sent events carry the same messages; with Last-Event-ID the stream goes on where it was."""
    headers = {"Cookie": f"{COOKIE}={await site.cookie()}"}
    async with httpx.AsyncClient(base_url=site.url, headers=headers, timeout=30) as http:
        async with http.stream("GET", "/events?topics=user:42") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("retry: ")
            await site.broadcast("user:42")
            identity = ""
            async for line in lines:
                if line.startswith("id: "):
                    identity = line[4:]
                if line.startswith("data: ") and json.loads(line[6:])["topic"] == "user:42":
                    break
        missed = await site.broadcast("user:42", 2)
        async with http.stream("GET", "/events?topics=user:42", headers={"Last-Event-ID": identity}) as stream:
            seen = []
            async for line in stream.aiter_lines():
                if line.startswith("data: ") and (said := json.loads(line[6:]))["topic"] is not None:
                    seen.append(said["id"])
                    if len(seen) == 2:
                        break
        assert seen == missed
        assert (await http.get("/events?topics=user:43")).status_code == 403


async def test_mounted_in_another_application(site: Site) -> None:
    """Under a prefix of a FastAPI application everything works as it does alone."""
    application = FastAPI()
    application.mount("/live", live_app(site.gateway))
    transport = httpx.ASGITransport(app=application)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.example.com") as http:
        headers = {"Cookie": f"{COOKIE}={await site.cookie()}"}
        assert "ticket" in (await http.post("/live/ticket", headers=headers)).json()
        assert "export function connect" in (await http.get("/live/client.js")).text


async def test_nothing_is_left_of_those_who_left(site: Site) -> None:
    """Clients that leave are forgotten: no follower, no connection counted."""
    for _ in range(5):
        async with site.socket("user:42", "market:AAPL") as opened:
            await hear(opened)
    await until(lambda: not site.gateway.connected, "the last one leaving")
    assert (site.gateway.hub.clients, site.gateway.hub._followers) == (set(), {})


async def test_stalled_clients_hold_up_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 sockets 4 stop reading: the others get every message in order, the 4 are closed with 4008."""
    async with contextlib.AsyncExitStack() as stack:
        stalled = [await stack.enter_async_context(site.stalled("market:AAPL")) for _ in range(4)]
        reading = [await stack.enter_async_context(site.socket("market:AAPL")) for _ in range(36)]
        for opened in reading:
            await hear(opened)
        ids = await site.broadcast("market:AAPL", 150, data="x" * 4000)

        async def read_all(opened: ClientConnection) -> list[str]:
            return [(await hear(opened))["id"] for _ in ids]

        assert await asyncio.gather(*[read_all(opened) for opened in reading]) == [ids] * len(reading)
        monkeypatch.setattr("cachebus.gateway.delivery.hub.STALLED_S", 0.0)
        await until(lambda: len(site.gateway.hub.clients) == len(reading), "the stalled ones being let go")
        assert site.gateway.hub.counts["slow"] == len(stalled)
        stalled[0].transport.resume_reading()
        assert await closed(stalled[0]) == 4008


# -- what comes from outside ------------------------------------------------------------------------------------------


async def test_text_that_is_not_utf8_ends_the_connection_without_a_traceback(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed with 1007, as RFC 6455 has it; the log has no line of it."""
    async with site.socket("user:42") as opened:
        await hear(opened)
        await opened.send(b"\xff\xfe", text=True)
        assert await closed(opened) == 1007
    assert [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}] == []


async def test_pings_count_too(site: Site) -> None:
    """A client that does nothing but ping is closed with 4429 after as many as it may send frames."""
    async with site.socket("user:42") as opened:
        await hear(opened)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(MOST_FRAMES + 1):  # none after that one: it would reset the connection
                await opened.ping()
        assert await closed(opened) == 4429


async def test_an_origin_of_another_scheme_is_another_site(site: Site) -> None:
    """`ftp://` on the gateway's own host and port is not its own page."""
    headers = {"Cookie": f"{COOKIE}={await site.cookie()}", "Origin": f"ftp://127.0.0.1:{site.port}"}
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{site.port}/ws", additional_headers=headers)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/client.js", "/events", "/nothing", "/client.js/", "/ws"])
async def test_every_answer_has_safe_headers_and_trusts_no_host(site: Site, path: str) -> None:
    """`nosniff` and a word on caching everywhere, no `Server`, and no redirect to the host that the request names."""
    async with httpx.AsyncClient(base_url=site.url, timeout=30) as http:
        answer = await http.get(path, headers={"Host": "evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] in {"no-store", "no-cache"}
    assert "server" not in answer.headers
    assert "evil.example" not in str(answer.headers)
    assert not answer.is_redirect


async def test_a_user_has_so_many_connections_and_no_more(client: Client) -> None:
    """The third of one user is closed with 1013; another user gets in, and the first again once one has left."""
    async with Site(client, limits=ConnectionLimits(per_user=2)).running() as site:
        async with site.socket("user:42") as first, site.socket("user:42") as second:
            await hear(first)
            await hear(second)
            async with site.socket("user:42") as third:
                assert await closed(third) == 1013
        await until(lambda: not site.gateway.connected, "all having left")
        async with site.socket("user:42") as again:
            await hear(again, "gateway.welcome")
    assert not site.gateway.seats.by_user
    assert not site.gateway.seats.by_address


async def test_an_address_has_so_many_connections_and_no_more(client: Client) -> None:
    """Behind a proxy of ours the third of one address is refused with 429, another address gets in."""
    limits = ConnectionLimits(per_address=2, proxies=1)
    async with Site(client, limits=limits).running() as site, contextlib.AsyncExitStack() as stack:
        url, cookie = f"ws://127.0.0.1:{site.port}/ws", f"{COOKIE}={await site.cookie()}"

        async def come(address: str) -> None:
            headers = {"Cookie": cookie, "X-Forwarded-For": address}
            await stack.enter_async_context(connect(url, additional_headers=headers))

        for _ in range(2):
            await come("203.0.113.9")
        with pytest.raises(InvalidStatus) as refused:
            await come("203.0.113.9")
        assert refused.value.response.status_code == 429
        await come("198.51.100.7")


async def test_a_loop_that_stood_still_closes_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that was stopped for longer than a hello may take reads what lay there meanwhile, and lets them in."""
    monkeypatch.setattr(websocket, "HELLO_S", 1.0)
    cookie = {"Cookie": f"{COOKIE}={await site.cookie()}"}
    async with connect(f"ws://127.0.0.1:{site.port}/ws", additional_headers=cookie) as opened:
        await until(lambda: site.gateway.connected, "the connection")
        sent = asyncio.create_task(opened.send('{"op": "hello", "topics": ["user:42"]}'))
        time.sleep(1.5)  # noqa: ASYNC251 - the loop is stopped: that is the point
        await sent
        await hear(opened, "gateway.welcome")
