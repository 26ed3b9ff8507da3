"""Answers that a middleware gives instead of the application, as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

Scope = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

TRY_AGAIN_LATER = 1013


async def refuse(scope: Scope, send: Send, status: int, problem: dict[str, Any], headers: list[Header]) -> None:
    """Answer a request, or a WebSocket's handshake, with a problem."""
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": problem["title"]})
            return
        kind = "websocket.http.response"
    body = msgspec.json.encode({**problem, "status": status})
    described = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": f"{kind}.start", "status": status, "headers": described})
    await send({"type": f"{kind}.body", "body": body})
