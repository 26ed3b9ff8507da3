"""The WebSocket: origin, first frame, frames, close codes."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from cachebus.errors import ServerError, SessionsUnavailable
from cachebus.gateway.delivery.hub import Close, Follower
from cachebus.gateway.gateway import Gateway
from cachebus.gateway.protocol import (
    FRAMES_S,
    LARGEST_FRAME_BYTES,
    MOST_FRAMES,
    EncodedMessage,
    Frame,
    Hello,
    Malformed,
    Notice,
    Subscribe,
    read_frame,
)
from cachebus.gateway.seats import NoSeat, Seat
from cachebus.gateway.transports.pump import serve

log = logging.getLogger("cachebus.gateway")

HELLO_S = 10.0
"""A connection that has not said who it is after this time is closed."""
CLOSE_S = 1.0


class Refuse(Exception):
    """The connection is closed, for this reason."""

    def __init__(self, why: Close) -> None:
        super().__init__(why.reason)
        self.why = why


class Socket:
    """One connection, from handshake to close."""

    def __init__(self, gateway: Gateway, websocket: WebSocket) -> None:
        self._gateway = gateway
        self._websocket = websocket
        self._frames = 0
        self._since = 0.0

    async def run(self) -> None:
        """Serve the connection until it ends."""
        gateway = self._gateway
        if not gateway.origins.allow(self._websocket):
            await self._deny(403, "this origin may not connect")
            return
        if gateway.draining:
            await self._deny(503, "come back later")
            return
        try:
            with gateway.seats.one(gateway.address(self._websocket)) as seat:
                await self._serve(seat)
        except NoSeat as full:
            await self._deny(503 if full.everybody else 429, str(full))

    async def _serve(self, seat: Seat) -> None:
        client = None
        try:
            await self._websocket.accept()
            client = await self._enter(seat)
            await serve(client, self._send, self._listen(client))
            await self._close(client.closing)
        except Refuse as refused:
            await self._close(refused.why)
        except WebSocketDisconnect:
            pass
        finally:
            if client is not None:
                self._gateway.hub.detach(client)

    async def _enter(self, seat: Seat) -> Follower:
        try:
            hello = await self._gateway.attention.within(HELLO_S, self._hello())
        except TimeoutError:
            raise Refuse(Close.SILENT) from None
        except Malformed:
            raise Refuse(Close.MALFORMED) from None
        if not isinstance(hello, Hello):
            raise Refuse(Close.MALFORMED)
        try:
            visitor = await self._gateway.admission.admit(self._websocket, hello.ticket)
        except (ServerError, SessionsUnavailable):
            raise Refuse(Close.AWAY) from None
        if visitor is None:
            raise Refuse(Close.SESSION)
        try:
            seat.of(visitor.user_id)
        except NoSeat:
            raise Refuse(Close.CROWD) from None
        client = self._gateway.hub.new_client(visitor.user_id, visitor.ref)
        await self._gateway.recovery.attach(client, hello.topics, hello.last)
        if self._gateway.draining:
            client.close(Close.RESTART)
        return client

    async def _hello(self) -> Frame:
        frame = read_frame(await self._read())
        await self._gateway.begun()
        return frame

    async def _listen(self, client: Follower) -> None:
        hub = self._gateway.hub
        try:
            while True:
                text = await self._read()
                self._count()
                try:
                    frame = read_frame(text)
                except Malformed as problem:
                    hub.complain(client, str(problem))
                    continue
                if isinstance(frame, Hello):
                    hub.complain(client, "hello was said already")
                elif isinstance(frame, Subscribe):
                    hub.subscribe(client, frame.topics)
                else:
                    hub.unsubscribe(client, frame.topics)
        except Refuse as refused:
            client.close(refused.why)
        except WebSocketDisconnect:
            pass

    async def _read(self) -> str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        content = message.get("text") or message.get("bytes") or ""
        if len(content) > LARGEST_FRAME_BYTES:
            raise Refuse(Close.FRAME)
        return content if isinstance(content, str) else "not text"

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._since > FRAMES_S:
            self._since, self._frames = now, 0
        self._frames += 1
        if self._frames > MOST_FRAMES:
            raise Refuse(Close.FLOOD)

    async def _send(self, item: EncodedMessage | Notice) -> None:
        await self._websocket.send_text(item.text)

    async def _deny(self, status: int, why: str) -> None:
        if "websocket.http.response" in self._websocket.scope.get("extensions", {}):
            await self._websocket.send_denial_response(PlainTextResponse(why, status))
        else:  # a server that can only answer 403
            await self._websocket.close()

    async def _close(self, why: Close | None) -> None:
        if why is None:  # the client has left
            return
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(CLOSE_S):  # the client of a full connection may never take it
                await self._websocket.close(why.code, why.reason)
