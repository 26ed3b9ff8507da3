"""Server-sent events: the same messages where a WebSocket does not get through."""

from __future__ import annotations

import asyncio
import contextlib
import random

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from cachebus.errors import ServerError, SessionsUnavailable
from cachebus.gateway.delivery.hub import Close, Follower
from cachebus.gateway.gateway import Gateway
from cachebus.gateway.protocol import MOST_TOPICS, EncodedMessage, Notice
from cachebus.gateway.seats import NoSeat
from cachebus.gateway.tickets import Visitor
from cachebus.gateway.transports.pump import serve

RETRY_MS = (1000, 4000)
"""When a browser comes back by itself; each is told a time of its own."""
END_S = 1.0


class StreamRefused(Exception):
    """The request is answered with this status, and a browser does not come back by itself."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def events(gateway: Gateway, request: Request) -> Response:
    """Answer `GET /events?topics=a,b`, with `Last-Event-ID` (or `last`), by cookie or by `ticket`.

    200 with a stream; 400 too many topics, 401 no session, 403 wrong origin or topic, 429 too many connections of this
    user or address, 503 come back later.
    """
    headers = gateway.origins.answer(request)
    topics = [topic for topic in request.query_params.get("topics", "").split(",") if topic]
    after = request.headers.get("last-event-id") or request.query_params.get("last")
    answer: Response
    with contextlib.ExitStack() as stack:
        try:
            seat = stack.enter_context(gateway.seats.one(gateway.address(request)))
            visitor = await _admit(gateway, request, topics)
            seat.of(visitor.user_id)
            client = gateway.hub.new_client(visitor.user_id, visitor.ref)
            answer = EventStream(gateway, client, topics, after, headers, stack.pop_all())
        except StreamRefused as refused:
            answer = PlainTextResponse(str(refused), refused.status, headers)
        except NoSeat as full:
            answer = PlainTextResponse(str(full), 503 if full.everybody else 429, headers)
        except (ServerError, SessionsUnavailable):
            answer = PlainTextResponse("sessions cannot be looked up now", 503, headers)
    return answer


async def _admit(gateway: Gateway, request: Request, topics: list[str]) -> Visitor:
    if not gateway.origins.allow(request):
        raise StreamRefused(403, "this origin may not connect")
    if gateway.draining:
        raise StreamRefused(503, "come back later")
    if len(topics) > MOST_TOPICS:
        raise StreamRefused(400, f"more than {MOST_TOPICS} topics")
    visitor = await gateway.admission.admit(request, request.query_params.get("ticket"))
    if visitor is None:
        raise StreamRefused(401, "no session, or it has ended")
    for topic in topics:
        if (why := gateway.hub.rules.refusal(topic, visitor.user_id)) is not None:
            raise StreamRefused(403, f"{topic}: {why}")
    return visitor


class EventStream(Response):
    """The stream of one client. Ended by the gateway, it simply ends: the browser comes back, and is told then."""

    media_type = "text/event-stream"

    def __init__(
        self,
        gateway: Gateway,
        client: Follower,
        topics: list[str],
        after: str | None,
        headers: dict[str, str],
        seat: contextlib.ExitStack,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})
        self._seat = seat
        del self.headers["content-length"]
        self._gateway = gateway
        self._client = client
        self._topics = topics
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves or is closed."""

        async def body(text: str, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        async def pass_on(item: EncodedMessage | Notice) -> None:
            await body(f"id: {item.id}\ndata: {item.text}\n\n" if item.id else f"data: {item.text}\n\n")

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        gateway, client = self._gateway, self._client
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            retry_ms = random.randint(*RETRY_MS)  # noqa: S311 - jitter, not a secret
            await body(f"retry: {retry_ms}\n\n")
            await gateway.begun()
            await gateway.recovery.attach(client, self._topics, self._after)
            if gateway.draining:
                client.close(Close.RESTART)
            await serve(client, pass_on, left())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):  # a client that takes nothing does not take the end either
                    await body("", more=False)
        finally:
            self._seat.close()
            gateway.hub.detach(client)
