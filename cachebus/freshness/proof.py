"""Proof that a ledger belongs to the present run of its server, where its run id may not be asked (INFO refused).

An era that such a process began names no run, so whoever enters it needs proof, and gives it to others from then on.

A connection that has not broken is the proof: had the server been restarted, or another one taken its place, it would
have. Who connects asks by pub/sub; a process whose connection was shaken in that era answers on that connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.redis.connection import Connection
from cachebus.waiting import end

log = logging.getLogger("cachebus")

ANSWER_S = 0.25
"""How long a newcomer waits for an answer; without one a new era begins."""
KEPT_MS = 1000
"""How long an answer that nobody fetched any more is kept."""


class Proof:
    """Asks other processes about an era, and answers them. Does nothing where run ids are known."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._channel = client.names.bus("proof")
        self._needed = False
        self._listening: asyncio.Task[None] | None = None
        self._wire: Connection | None = None
        self._era = ""

    async def ask(self, wire: Connection, run: str) -> str:
        """Return the ledger's era if another connection proves that it is of this run, else ''. Raises: ServerError.

        run: the server's, '' where it may not be asked. Where it and the era's are known, no proof is needed.
        """
        self._needed = self._needed or not run
        try:
            members = await wire.call("ZRANGEBYSCORE", self._client.names.ledger, -2, -1)
            if len(members) != 2 or (run and members[0] != b"@run:"):
                return ""
            self._needed = True
            era, question = members[1].decode(errors="replace").removeprefix("@era:"), secrets.token_hex(8)
            if not await wire.call("PUBLISH", self._channel, f"{question} {era}"):
                return ""
            answered = await wire.call("BLPOP", self._answer_key(question), ANSWER_S)
        except ServerError as refused:
            if wire.lost.done():
                raise
            log.debug("no proof of the era: %s", refused)
            return ""
        return era if answered else ""

    def vouch_on(self, wire: Connection, era: str) -> None:
        """Answer others on this connection from now on: it was shaken in *era*."""
        self._wire, self._era = wire, era
        if self._needed and self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="cachebus proof")

    def is_behind(self, era: str) -> bool:
        """Return whether proof of *era* may be asked of this process, and it vouches on a connection of another one."""
        return self._needed and era != self._era and self._wire is not None and not self._wire.lost.done()

    async def _listen(self) -> None:
        while True:
            try:
                await self._client.subscriptions.subscribe(self._channel, self._asked)
            except ServerError as unavailable:
                log.debug("not listening for questions about the era: %s", unavailable)
                await asyncio.sleep(1)
            else:
                return

    def _asked(self, _channel: str, payload: bytes) -> None:
        question, _, era = payload.decode(errors="replace").partition(" ")
        wire = self._wire
        if era != self._era or wire is None or wire.lost.done():
            return
        key = self._answer_key(question)
        wire.submit([("RPUSH", key, era), ("PEXPIRE", key, KEPT_MS)], lambda _: None)

    def _answer_key(self, question: str) -> str:
        return self._client.names.bus("proof", question)

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        task, self._listening = self._listening, None
        if task is not None:
            await end([task])
