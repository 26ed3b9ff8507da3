"""Server-sent events: the same messages where a WebSocket does not get through."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from cachebus.errors import ServerError, SessionsUnavailable
from gateway.hub import Client
from gateway.message import MOST_TOPICS, Message, Notice
from gateway.sending import serve
from gateway.tickets import Visitor

if TYPE_CHECKING:
    from gateway.live import Gateway

RETRY_MS = (1000, 4000)
"""When a browser comes back by itself; each is told a time of its own."""
END_S = 1.0


class Refused(Exception):
    """The request is answered with this status, and a browser does not come back by itself."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def events(gateway: Gateway, request: Request) -> Response:
    """Answer `GET /events?topics=a,b`, with `Last-Event-ID` (or `last`), by cookie or by `ticket`.

    200 with a stream; 400 too many topics, 401 no session, 403 wrong origin or topic, 503 come back later.
    """
    headers = gateway.origins.answer(request)
    topics = [topic for topic in request.query_params.get("topics", "").split(",") if topic]
    after = request.headers.get("last-event-id") or request.query_params.get("last")
    try:
        visitor = await _admit(gateway, request, topics)
    except Refused as refused:
        return PlainTextResponse(str(refused), refused.status, headers)
    except (ServerError, SessionsUnavailable):
        return PlainTextResponse("sessions cannot be looked up now", 503, headers)
    return EventStream(gateway, gateway.hub.new_client(visitor.user_id, visitor.ref), topics, after, headers)


async def _admit(gateway: Gateway, request: Request, topics: list[str]) -> Visitor:
    if not gateway.origins.allow(request):
        raise Refused(403, "this origin may not connect")
    if gateway.draining or gateway.full:
        raise Refused(503, "come back later")
    if len(topics) > MOST_TOPICS:
        raise Refused(400, f"more than {MOST_TOPICS} topics")
    visitor = await gateway.admission.admit(request, request.query_params.get("ticket"))
    if visitor is None:
        raise Refused(401, "no session, or it has ended")
    for topic in topics:
        if (why := gateway.hub.rules.refusal(topic, visitor.user_id)) is not None:
            raise Refused(403, f"{topic}: {why}")
    return visitor


class EventStream(Response):
    """The stream of one client. Ended by the gateway, it simply ends: the browser comes back, and is told then."""

    media_type = "text/event-stream"

    def __init__(
        self, gateway: Gateway, client: Client, topics: list[str], after: str | None, headers: dict[str, str]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._gateway = gateway
        self._client = client
        self._topics = topics
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves or is closed."""

        async def body(text: str, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        async def pass_on(item: Message | Notice) -> None:
            await body(f"id: {item.id}\ndata: {item.text}\n\n" if item.id else f"data: {item.text}\n\n")

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        gateway, client = self._gateway, self._client
        gateway.connected += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            retry_ms = random.randint(*RETRY_MS)  # noqa: S311 - jitter, not a secret
            await body(f"retry: {retry_ms}\n\n")
            await gateway.begun()
            await gateway.recovery.attach(client, self._topics, self._after)
            await serve(client, pass_on, left())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):  # a client that takes nothing does not take the end either
                    await body("", more=False)
        finally:
            gateway.connected -= 1
            gateway.hub.detach(client)
