"""*Browsers*: the sockets of all gateways by user and topic, and a user's sessions."""

from __future__ import annotations

from collections import Counter

import msgspec

from cachebus.monitoring.sockets import OpenSocket, open_sockets
from cachebus.redis.client import Client
from cachebus.sessions.store import SessionStore

SHOWN = 200
TOPICS = 20


class GatewayShown(msgspec.Struct, frozen=True):
    """One gateway."""

    process: str
    sockets: int
    answered: bool
    reported_ms_ago: int


class SocketShown(msgspec.Struct, frozen=True):
    """One socket, and where it is."""

    gateway: str
    socket: OpenSocket


class SessionShown(msgspec.Struct, frozen=True):
    """One live session of a user."""

    ref: str
    ip: str | None
    agent: str | None
    since_ms: float
    seen_ms: float


class BrowsersShown(msgspec.Struct, frozen=True):
    """The answer of `api/browsers`."""

    gateways: list[GatewayShown]
    sockets: list[SocketShown]
    """The newest that match."""
    matching: int
    topics: dict[str, int]
    """Those that most of the sockets follow, of all that were told."""
    sessions: list[SessionShown] | None
    """Of the user that was asked for; None where none was."""


async def show_browsers(client: Client, sessions: SessionStore, user: str, topic: str, gateway: str) -> BrowsersShown:
    """Ask all gateways. Raises: ServerError, SessionsUnavailable."""
    found = await open_sockets(client, user)
    everywhere = [SocketShown(each.process, one) for each in found for one in each.open]
    chosen = [
        each
        for each in everywhere
        if (not topic or topic in each.socket.topics) and (not gateway or gateway == each.gateway)
    ]
    newest = sorted(chosen, key=lambda each: each.socket.since_ms, reverse=True)
    topics = Counter(name for each in everywhere for name in each.socket.topics)
    return BrowsersShown(
        [GatewayShown(each.process, each.sockets, each.answered, each.reported_ms_ago) for each in found],
        newest[:SHOWN],
        len(newest),
        dict(topics.most_common(TOPICS)),
        await sessions_of(sessions, user) if user else None,
    )


async def sessions_of(store: SessionStore, user: str) -> list[SessionShown]:
    """Return the live sessions of a user. Raises: SessionsUnavailable."""
    return [
        SessionShown(
            session.ref[:12],
            session.ip,
            session.user_agent,
            session.created_at.timestamp() * 1000,
            session.last_seen_at.timestamp() * 1000,
        )
        for session in await store.list_user(user)
    ]
