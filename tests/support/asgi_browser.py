"""A browser for ASGI applications: keeps the cookie it is given, sends it back, shows what came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What a request brought."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """Return a header; all of that name, joined."""
        return ", ".join(value for key, value in self.headers if key == name)


@dataclass
class Browser:
    """One client: its address, its headers, its cookies."""

    app: Any
    address: str | None = "203.0.113.9"
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str = "/", *, method: str = "GET", **headers: str) -> Answer:
        """Send a request; underscores in header names are dashes."""
        sent = dict(self.headers) | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent.setdefault("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": None if self.address is None else (self.address, 50_000),
            "server": ("localhost", 443),
        }
        answer = Answer(0, [], b"")

        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            for message in messages:
                return message
            return await asyncio.get_running_loop().create_future()  # the client neither sends more nor leaves

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert answer.status == 0, "a response begins once"
                answer.status = message["status"]
                answer.headers = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
            else:
                answer.body += message.get("body", b"")

        await self.app(scope, receive, send)
        for name, line in answer.headers:
            if name == "set-cookie":
                self._keep(line)
        return answer

    def _keep(self, line: str) -> None:
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        if "Max-Age=0" in attributes:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


async def handshake(app: Any, path: str = "/", *, extensions: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Open a WebSocket as a browser does, and return what the application sent."""
    scope = {
        "type": "websocket",
        "path": path,
        "headers": [],
        "client": ("203.0.113.9", 50_000),
        "subprotocols": [],
        "extensions": extensions or {},
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    return sent
