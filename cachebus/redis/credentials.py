"""Credentials that change: asked for at each connect, and sent again on open connections before they end."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from importlib import import_module
from inspect import isawaitable
from typing import Any, NamedTuple

from cachebus.errors import AccessDenied, CacheBusError, CannotStart, ConfigurationError, ServerError, Unavailable
from cachebus.redis.connection import Argument, Connection

log = logging.getLogger("cachebus")

ASK_S = 5.0
"""How long the application may take to answer: issuers of tokens are HTTP services."""
AUTH_S = 5.0
"""The answer to AUTH comes behind that of a read that blocks for a second."""
RENEW_FROM, RENEW_UNTIL = 0.6, 0.75
"""When in its life a token is replaced, at random in between: some hundred processes do not ask in one second.
Source: Microsoft asks for three minutes before the end, tokens of AWS live 15 minutes, of Google and Entra an hour."""
RETRY_S = 1.0
SHORTEST_S = 0.1
"""Between two renewals, however short a token lives."""
_MILLISECONDS_FROM = 10_000_000_000

Provider = Callable[[], Awaitable[tuple[str | None, str, float | None]]]
"""`async () -> (user, password, expires_at)`: no user is the default one; `expires_at` in seconds of the epoch, None
where nobody knows."""


WANTED = "it must be an async function that returns (user or None, password, seconds of the epoch or None)"


class Credential(NamedTuple):
    """What the server is told at one time."""

    user: str | None
    password: str
    renew_at: float
    """When it is to be replaced, seconds of the epoch; infinite where it is not."""

    @property
    def command(self) -> tuple[Argument, ...]:
        """What is sent."""
        return ("AUTH", *((self.user,) if self.user else ()), self.password)


class Credentials:
    """Where the credentials of one deployment come from. *name* is what messages call it."""

    def __init__(self, provider: Provider, name: str = "credentials=") -> None:
        if not callable(provider):
            raise ConfigurationError(f"{name}: {provider!r} cannot be called; {WANTED}")
        self.name = name
        self._provider = provider
        self._latest: Credential | None = None
        self._failing = False

    async def ask(self, *, apart: bool = False) -> Credential:
        """Return what is valid now. *apart*: what was returned last, for a thread whose loop is not the application's.

        Raises: Unavailable, with what the application raised or returned instead.
        """
        if apart and self._latest is not None:
            return self._latest
        try:
            async with asyncio.timeout(ASK_S):
                answer: Any = self._provider()
                answer = await answer if isawaitable(answer) else answer
            self._latest = self._read(answer)
        except TimeoutError:
            raise Unavailable(f"{self.name}: no answer within {ASK_S:g} s") from None
        except CacheBusError:
            raise
        except Exception as failed:
            raise Unavailable(f"{self.name}: raised {type(failed).__name__}: {failed}") from failed
        return self._latest

    def attend(self, connection: Connection, credential: Credential) -> None:
        """Keep *connection* authenticated until it is lost. One that listens cannot be: its owner replaces it."""
        if math.isinf(credential.renew_at):
            return
        loop = asyncio.get_running_loop()
        if connection.on_push is not None:
            connection.replace_at = loop.time() + max(SHORTEST_S, credential.renew_at - time.time())
            return
        renewing = loop.create_task(
            self._renew(connection, credential), name="cachebus credentials", context=Context()
        )  # a fresh context: a connection outlives the request whose task happened to open it
        connection.lost.add_done_callback(lambda _: renewing.cancel())

    async def _renew(self, connection: Connection, credential: Credential) -> None:
        pause_s = credential.renew_at - time.time()
        while True:
            await asyncio.sleep(max(SHORTEST_S, pause_s))
            try:
                newer = await self._newer(credential)
                await connection.call(*newer.command, timeout_s=AUTH_S)
            except ServerError as refused:
                if isinstance(refused, AccessDenied):
                    self._latest = None  # it has changed since it was given out
                self._failed(refused)
                pause_s = RETRY_S
            else:
                credential = newer
                self._succeeded()
                pause_s = newer.renew_at - time.time()

    def _failed(self, reason: ServerError) -> None:
        if not self._failing:
            self._failing = True
            log.warning("credentials not renewed, trying again: %s", reason)

    def _succeeded(self) -> None:
        if self._failing:
            self._failing = False
            log.warning("credentials renewed")

    async def _newer(self, than: Credential) -> Credential:
        """Return what another connection was renewed with meanwhile, or ask."""
        latest = self._latest
        return latest if latest is not None and latest.renew_at > max(time.time(), than.renew_at) else await self.ask()

    def _read(self, answer: Any) -> Credential:
        if not isinstance(answer, tuple | list) or len(answer) != 3:
            raise Unavailable(f"{self.name}: returned {type(answer).__name__}; {WANTED}")
        user, password, expires_at = answer
        for field, value, kinds in (
            ("user", user, str | None),
            ("password", password, str),
            ("expires_at", expires_at, int | float | None),
        ):
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise Unavailable(f"{self.name}: {field} is {type(value).__name__}; {WANTED}")
        if expires_at is None:
            return Credential(user, password, math.inf)
        now = time.time()
        if not now < expires_at < _MILLISECONDS_FROM:
            at = "over" if expires_at <= now else "in no century; seconds of the epoch are expected"
            raise Unavailable(f"{self.name}: expires_at={expires_at!r} is {at}")
        life = random.uniform(RENEW_FROM, RENEW_UNTIL)  # noqa: S311 - jitter, not a secret
        return Credential(user, password, now + (expires_at - now) * life)


def named(where: tuple[str, str], variable: str = "REDIS_CREDENTIALS") -> Credentials:
    """Return the credentials that a setting names. Raises: CannotStart with one line."""
    module, attribute = where
    try:
        provider = getattr(import_module(module), attribute)
    except AttributeError:
        raise CannotStart([f"{variable}: there is no {attribute!r} in {module}"]) from None
    except Exception as failed:
        raise CannotStart([f"{variable}: {module} cannot be imported: {type(failed).__name__}: {failed}"]) from failed
    if not callable(provider):
        raise CannotStart([f"{variable}: {attribute!r} in {module} is {type(provider).__name__}; {WANTED}"])
    return Credentials(provider, f"{variable}={module}:{attribute}")
