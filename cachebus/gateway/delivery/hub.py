"""The hub: which clients follow what, where each of them stands, and what it is sent next. Pure: no socket, no loop.

A client is sent what is newer than where it stands, in order, each message once; or it is told `recovered: false`, and
reads what it shows anew. Nothing here waits, so between a client's replay and its first live message nothing can pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cachebus.bus.feed import Page
from cachebus.gateway.delivery.client_queue import ClientQueue
from cachebus.gateway.delivery.replay_window import ReplayWindow
from cachebus.gateway.protocol import MOST_TOPICS, EncodedMessage, Notice, Position, message_of, notice
from cachebus.gateway.topics import Rules
from cachebus.sessions.session import UserId

HEARTBEAT_S = 25.0
"""Shorter than the shortest common idle timeout of proxies, 30 s; and than that of platforms, 55 s."""
STALLED_S = 20.0
"""A client that takes nothing for so long, while something waits, is closed."""


class Close(Enum):
    """Why the gateway closes a connection: code and reason. 4000 to 4999 are for applications (RFC 6455, 7.4.2)."""

    RESTART = (1012, "the gateway restarts; come back")
    FRAME = (1009, "a frame is longer than 4096 bytes")
    MALFORMED = (4400, "the first frame must be a hello")
    SESSION = (4401, "no session, or it has ended")
    SLOW = (4008, "too slow: messages waited for too long")
    SILENT = (4408, "no hello in time")
    FLOOD = (4429, "too many frames")
    FULL = (1013, "the gateway has as many clients as it may have; come back later")
    AWAY = (1013, "sessions cannot be looked up now; come back later")
    CROWD = (1013, "too many connections of this user; come back later")

    @property
    def code(self) -> int:
        """The close code."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """For whoever looks into the browser's console."""
        return self.value[1]


class Standing(Enum):
    """What is known of the id that a client comes back with."""

    KNOWN = "in memory"
    ELSEWHERE = "not in memory; perhaps in the feed"
    LOST = "not of this feed"


@dataclass(eq=False, slots=True)
class Follower:
    """One connection, as the hub sees it."""

    user_id: UserId
    ref: str
    """Of the session it came with."""
    queue: ClientQueue
    since_ms: int = 0
    topics: set[str] = field(default_factory=set)
    stands: Position | None = None
    """What is not newer than this, it has."""
    last: str = ""
    closing: Close | None = None

    def close(self, why: Close) -> None:
        """Have the connection closed; the first reason holds."""
        self.closing = self.closing or why
        self.queue.wake()


class Hub:
    """Everything in memory of one gateway. *clock* gives seconds for patience, *wall_ms* the time that is told."""

    def __init__(
        self,
        rules: Rules,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        *,
        window: ReplayWindow | None = None,
    ) -> None:
        self.rules = rules
        self.window = ReplayWindow() if window is None else window
        self.fresh_after = ""
        """Clock of the newest change that was told, for whoever begins to listen now."""
        self.away = False
        """Whether this gateway is cut off from the feed: what clients show may be old."""
        self.clients: set[Follower] = set()
        self.counts: Counter[str] = Counter()
        """messages, sent, left_out, resumed, reset, slow."""
        self._clock = clock
        self._wall_ms = wall_ms
        self._followers: dict[str, set[Follower]] = {}

    def followers(self, topic: str) -> int:
        """Return how many clients follow *topic* here."""
        return len(self._followers.get(topic, ()))

    def new_client(self, user_id: UserId, ref: str) -> Follower:
        """Return a client that is not yet attached."""
        return Follower(user_id, ref, ClientQueue(self._skipped), self._wall_ms())

    # -- what comes from the feed -----------------------------------------------------------------------------------

    def begin(self, newest: str, fresh_after: str) -> None:
        """Begin at the newest record. Clients that are here already have missed something."""
        self.window.begin(newest)
        self.fresh_after = fresh_after
        self._reset_all("something is missing between the gateway and its feed")

    def receive(self, page: Page, fresh_after: str = "") -> None:
        """Hand out what came. A page that is not recovered resets everyone: *fresh_after* is then the newest clock."""
        messages = [message_of(record) for record in page.records]
        if not page.recovered or None in messages:
            newest = next((message for message in reversed(messages) if message is not None), None)
            self.begin(page.last, fresh_after or (newest.fresh_after if newest is not None else self.fresh_after))
            return
        now = self._clock()
        for message in messages:
            assert message is not None  # noqa: S101 - for the type checker: looked for above
            self.window.add(message)
            self.fresh_after = message.fresh_after
            self.counts["messages"] += 1
            for client in self._followers.get(message.topic, ()):
                self._deliver(client, message, now)

    def cut_off(self, *, away: bool) -> None:
        """Tell everyone, where that is new. When the feed is heard again, what was missed follows."""
        if away != self.away:
            self.away = away
            for client in self.clients:
                self._say(client, "away" if away else "back")

    def _deliver(self, client: Follower, message: EncodedMessage, now: float) -> None:
        if _had(client, message):
            return
        client.stands, client.last = message.position, message.id
        client.queue.put(message, now)
        self.counts["sent"] += 1
        if client.queue.overflowed:
            self._too_slow(client)

    def _reset_all(self, reason: str) -> None:
        now = self._clock()
        for client in self.clients:
            client.queue.forget(now)
            client.last, client.stands = self.window.newest, Position.of(self.window.newest)
            self._say(client, "reset", recovered=False, reason=reason)
            self.counts["reset"] += 1

    # -- clients ----------------------------------------------------------------------------------------------------

    def standing(self, identity: str) -> Standing:
        """Return whether a client can resume after this id from memory, or must be looked for in the feed."""
        if self.window.after(identity) is not None:
            return Standing.KNOWN
        position, here = Position.of(identity), Position.of(self.window.newest)
        if position is None or here is None or here.epoch != position.epoch:
            return Standing.LOST
        return Standing.ELSEWHERE

    def attach(self, client: Follower, topics: Iterable[str], after: str | None, *, ahead: bool = False) -> None:
        """Let a client in: it is welcomed, sent what it missed of its topics, and from then on what comes.

        *ahead*: the id is in the feed, and the gateway has not reached it yet. The client then gets what follows it.
        """
        missed = None if after is None else [] if ahead else self.window.after(after)
        recovered = missed is not None
        client.last = after if after is not None and recovered else self.window.newest
        client.stands = Position.of(client.last)
        self.clients.add(client)
        refused = self._follow(client, topics)
        self._say(client, "welcome", recovered=recovered, user=client.user_id, topics=sorted(client.topics))
        self._refuse(client, refused)
        if self.away:
            self._say(client, "away")
        if missed:
            now = self._clock()
            chosen = [message for message in missed if message.topic in client.topics and not _had(client, message)]
            client.queue.replay(chosen, now)
            self.counts["sent"] += len(chosen)
            client.last, client.stands = missed[-1].id, missed[-1].position
        self.counts["resumed"] += recovered

    def detach(self, client: Follower) -> None:
        """Forget a client. Idempotent."""
        self.clients.discard(client)
        for topic in tuple(client.topics):
            self._leave(client, topic)

    def subscribe(self, client: Follower, topics: Sequence[str]) -> None:
        """Follow more; what is not allowed is answered with an error, the rest holds."""
        refused = self._follow(client, topics)
        self._say(client, "subscribed", topics=sorted(client.topics))
        self._refuse(client, refused)

    def unsubscribe(self, client: Follower, topics: Sequence[str]) -> None:
        """Follow fewer."""
        for topic in topics:
            self._leave(client, topic)
        self._say(client, "subscribed", topics=sorted(client.topics))

    def complain(self, client: Follower, problem: str) -> None:
        """Answer a frame that cannot be read."""
        self._say(client, "error", code="malformed", reason=problem)

    def _follow(self, client: Follower, topics: Iterable[str]) -> list[tuple[str, str, str]]:
        refused = []
        for topic in topics:
            if (why := self.rules.refusal(topic, client.user_id)) is not None:
                refused.append(("forbidden", topic, why))
            elif topic not in client.topics and len(client.topics) >= MOST_TOPICS:
                refused.append(("too_many_topics", topic, f"a client follows at most {MOST_TOPICS} topics"))
            else:
                client.topics.add(topic)
                self._followers.setdefault(topic, set()).add(client)
        return refused

    def _refuse(self, client: Follower, refused: Sequence[tuple[str, str, str]]) -> None:
        for code, topic, why in refused:
            self._say(client, "error", code=code, topic=topic, reason=why)

    def _leave(self, client: Follower, topic: str) -> None:
        client.topics.discard(topic)
        followers = self._followers.get(topic)
        if followers is not None:
            followers.discard(client)
            if not followers:
                del self._followers[topic]

    # -- time -------------------------------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Tell everyone where they stand, so that who hears nothing for long does not fall off the feed's end."""
        now, newest = self._clock(), self.window.newest
        here = Position.of(newest)
        common = notice("heartbeat", newest, self._wall_ms(), self.fresh_after)
        for client in self.clients:
            ahead = _ahead(client.stands, here)
            text = notice("heartbeat", client.last, self._wall_ms(), self.fresh_after) if ahead else common
            if not ahead:
                client.last, client.stands = newest, here
            if len(client.queue) == 0:  # whoever has something to read needs no sign of life
                client.queue.say(text, now)

    def sweep(self) -> None:
        """Close whoever has taken nothing for too long."""
        now = self._clock()
        for client in self.clients:
            if client.queue.since is not None and now - client.queue.since > STALLED_S:
                self._too_slow(client)

    def _too_slow(self, client: Follower) -> None:
        if client.closing is None:
            self.counts["slow"] += 1
        client.close(Close.SLOW)

    def _say(self, client: Follower, what: str, **data: object) -> None:
        client.queue.say(notice(what, client.last, self._wall_ms(), self.fresh_after, **data), self._clock())
        if client.queue.overflowed:
            client.close(Close.FLOOD)

    def _skipped(self, left_out: Counter[str]) -> Notice:
        self.counts["left_out"] += left_out.total()
        told = dict(left_out)
        return notice("skipped", "", self._wall_ms(), self.fresh_after, recovered=False, topics=told)


def _had(client: Follower, message: EncodedMessage) -> bool:
    """Whether the client has this message: within an epoch, what is not newer than where it stands."""
    return client.stands is not None and _ahead(client.stands, message.position, or_equal=True)


def _ahead(stands: Position | None, here: Position | None, *, or_equal: bool = False) -> bool:
    if stands is None or here is None or stands.epoch != here.epoch:
        return False
    return stands.clock > here.clock or (or_equal and stands.clock == here.clock)
