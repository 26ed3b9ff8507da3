"""The dictionary of a view: taken from Redis, or trained of what is stored; all processes use the same one.

Nobody waits for one. Until it is there values are stored as in any other view, and an entry whose dictionary this
process does not have yet is a miss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from cachebus.dictionary import Dictionary, frame_id, train
from cachebus.errors import ServerError
from cachebus.keys import stored_name
from cachebus.link import Link, now_s

log = logging.getLogger("cachebus")

SAMPLES = 400
"""Values a dictionary is trained of: some 100 KB."""
SAMPLE_BYTES = range(16, 16 * 1024)
"""Smaller ones have nothing to save, larger ones are compressed well enough alone."""
KEPT_MS = 40 * 86_400_000
"""Longer than any entry lives; begun anew by every process that looks."""
LOOK_S = 3600.0
"""How often a process that stores looks: what was lost is put back, what others agreed on is taken."""
TRAIN_AGAIN_S = 86_400.0
"""After samples that had too little in common."""
PAUSE_S = 10.0
"""Between looks that fail, or do not find what an entry was made with."""


class Dictionaries:
    """The dictionaries of one deployment, as one process knows them, by the name a view gives its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._views: dict[str, ViewDictionary] = {}

    def of(self, name: str) -> ViewDictionary:
        """Return the dictionary of the views called *name*, to be found or made."""
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = ViewDictionary(self._link, name)
        return view

    async def close(self) -> None:
        """Cancel what is under way."""
        await asyncio.gather(*[view.close() for view in self._views.values()])


class ViewDictionary:
    """One dictionary, at most one at a time; entries of an earlier one are misses."""

    def __init__(self, link: Link, name: str) -> None:
        self._store = link.store
        self._key = link.names.spread("dictionary", stored_name(name))
        self._dictionary: Dictionary | None = None
        self._samples: list[bytes] = []
        self._looked_at = float("-inf")
        self._look_s = PAUSE_S
        """How long what the latest look found is taken for granted."""
        self._train_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def compress(self, payload: bytes) -> bytes | None:
        """Return *payload* compressed, or None while there is no dictionary: it is then one more sample for one."""
        now = now_s()
        if len(self._samples) >= SAMPLES:
            self._begin(self._train())
        elif now - self._looked_at >= self._look_s:
            self._begin(self.look())
        if self._dictionary is not None:
            return self._dictionary.compress(payload)
        if now >= self._train_at and len(payload) in SAMPLE_BYTES and len(self._samples) < SAMPLES:
            self._samples.append(payload)
        return None

    def inflate(self, frame: bytes) -> bytes:
        """Return the payload. Raises: ValueError where it was made with a dictionary this process does not have."""
        if self._dictionary is None or frame_id(frame) != self._dictionary.id:
            if now_s() - self._looked_at >= PAUSE_S:
                self._begin(self.look())
            raise ValueError("made with another dictionary")
        return self._dictionary.inflate(frame)

    async def look(self) -> None:
        """Take what all have agreed on, or put back what was lost. One round trip, two to put it back.

        Raises: ServerError.
        """
        self._looked_at, self._look_s = now_s(), PAUSE_S
        sealed = await self._store.call("GETEX", self._key, "PX", KEPT_MS, key=self._key)
        if sealed is not None:
            await self._take(sealed)
        elif self._dictionary is not None:
            await self._offer(self._dictionary)
        self._look_s = LOOK_S

    async def close(self) -> None:
        """Cancel what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _train(self) -> None:
        samples, self._samples = self._samples, []
        dictionary = await asyncio.to_thread(train, samples)
        if dictionary is None:
            self._train_at = now_s() + TRAIN_AGAIN_S
        else:
            await self._offer(dictionary)

    async def _offer(self, dictionary: Dictionary) -> None:
        """Make it everybody's, unless there is one by now."""
        if await self._store.call("SET", self._key, dictionary.sealed(), "NX", "PX", KEPT_MS, key=self._key):
            self._dictionary = dictionary
        else:
            await self.look()

    async def _take(self, sealed: bytes) -> None:
        try:
            dictionary = Dictionary.opened(sealed)
        except ValueError as damaged:
            log.warning("%s: %s; it is deleted, and a new one is trained", self._key, damaged)
            await self._store.call("DEL", self._key, key=self._key)
            self._dictionary = None
            return
        if self._dictionary is None or self._dictionary.id != dictionary.id:
            self._dictionary = dictionary
        self._samples.clear()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._task is not None and not self._task.done():
            work.close()
            return
        self._task = asyncio.ensure_future(self._quietly(work))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ServerError as away:
            log.debug("%s: %s", self._key, away)
