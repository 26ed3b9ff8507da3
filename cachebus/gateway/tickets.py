"""One-use tickets: what lets a browser in where its cookie does not go.

A page of `app.example.com` that talks to `live.example.com` asks its own server for a ticket; that server, which knows
the session, makes one. It is random, works once, for 30 seconds, and Redis holds its digest only. So it may stand where
a session id must not: in the query of `/events`, which proxies log, because `EventSource` sends no headers. The
WebSocket takes it in its first frame.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

import msgspec

from cachebus.errors import ConfigurationError
from cachebus.redis.client import Client, Connector
from cachebus.sessions.session import Session, UserId

TICKET_S = 30


class Visitor(NamedTuple):
    """Who connects, and by which session."""

    user_id: UserId
    ref: str


class Tickets:
    """Issues and takes tickets. Raises what the server answers, Unavailable when it does not."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def issue(self, session: Session) -> str:
        """Return a ticket for the user of *session*. One round trip."""
        ticket = secrets.token_urlsafe(32)
        what = msgspec.json.encode(Visitor(session.user_id, session.ref))
        client, name = await self._client(), self._name(ticket)
        await client.store.call("SET", name, what, "EX", TICKET_S, key=name)
        return ticket

    async def take(self, ticket: str) -> Visitor | None:
        """Return who it is for, once; None for a ticket that was used, is old, or never was."""
        client, name = await self._client(), self._name(ticket)
        held = await client.store.call("GETDEL", name, key=name)
        return None if held is None else msgspec.json.decode(held, type=Visitor)

    async def _client(self) -> Client:
        client = await self._connector.connection()
        if client is None:
            raise ConfigurationError("REDIS_ENABLED=false: tickets are kept in Redis and nowhere else")
        return client

    def _name(self, ticket: str) -> str:
        return self._connector.names.spread("ticket", hashlib.sha256(ticket.encode()).hexdigest()[:32])
