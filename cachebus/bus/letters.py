"""What is kept of events that are not handled now: to be retried, to be published later, or dead-lettered. Pure."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from typing import NamedTuple, Self

import msgspec

from cachebus.bus.events import PAYLOAD_BYTES, Event

REASON_CHARACTERS = 500
DETAIL_CHARACTERS = 4000
_VARIES = re.compile(r"0x[0-9a-f]+|\d+")
"""What differs between two reasons that are one."""
KEPT_PAYLOAD_BYTES = 4 * PAYLOAD_BYTES
"""A dead letter holds the whole payload, unless somebody put a monster into the stream."""


class RetryItem(msgspec.Struct, frozen=True, array_like=True):
    """One handler's run on one event that is to be repeated. Holds the payload, never a reference to the stream."""

    handler: str
    position: str
    channel: str
    payload: bytes
    id: str
    key: str
    traceparent: str = ""
    before: int = 0
    """Attempts made before it became a dead letter that somebody put back."""
    letter: str = ""
    """The id of that dead letter."""

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return an item as it is stored; one that cannot be read names no handler, and so becomes a dead letter."""
        try:
            return msgspec.msgpack.decode(packed, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return cls("", "", "", packed, "", "")

    @property
    def name(self) -> str:
        """Its name in the retries: one for each event and handler."""
        return f"{self.position}/{self.handler}"

    def event(self, attempt: int) -> Event:
        """Return the envelope for attempt number *attempt*."""
        return Event(self.position, self.channel, self.payload, self.id, self.key, attempt, self.traceparent)


class DelayedItem(msgspec.Struct, frozen=True, array_like=True):
    """An event that waits. It is signed when it is published: a signature bears the time of that."""

    channel: str
    payload: bytes
    key: str = ""
    traceparent: str = ""
    by: str = ""

    @classmethod
    def unpack(cls, packed: bytes) -> Self | None:
        """Return an item as it is stored, None for what is none."""
        try:
            return msgspec.msgpack.decode(packed, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


class DeadLetter(NamedTuple):
    """An event nobody will try again until somebody asks for it: what it was and why it ended here."""

    kind: str
    """`invalid`, `failed`, `unfit`, `poison`, `lost handler`, `refresh`, or `gap`."""
    channel: str
    payload: bytes
    handler: str
    attempts: int
    reason: str
    detail: str
    """The traceback, if there is one; at most 4,000 characters of it, the end."""
    id: str
    key: str
    position: str
    letter: str = ""
    """The id of the dead letter it was before somebody put it back."""


def dead_letter(  # noqa: PLR0913 - a letter says all of it
    kind: str,
    event: Event,
    handler: str,
    reason: str,
    error: BaseException | None = None,
    *,
    attempts: int = 0,
    letter: str = "",
) -> DeadLetter:
    """Return the dead letter of *event*; *letter* is the id of the one it was before."""
    detail = "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS:] if error is not None else ""
    return DeadLetter(
        kind,
        event.channel,
        event.payload[:KEPT_PAYLOAD_BYTES],
        handler,
        attempts or event.attempt,
        reason[:REASON_CHARACTERS],
        detail,
        event.id,
        event.key,
        event.position,
        letter,
    )


def dead_letter_again(kind: str, item: RetryItem, attempt: int, reason: str) -> DeadLetter:
    """Return the dead letter of a retry that never reached its handler: the one it was, if somebody put it back."""
    attempts = item.before + attempt
    return dead_letter(kind, item.event(attempt), item.handler, reason, attempts=attempts, letter=item.letter)


def buried(letter: DeadLetter) -> str:
    """Return what a log says of a dead letter, in one line."""
    what = f"event {letter.id or letter.position} on {letter.channel or 'no channel'}"
    times = f"{letter.attempts} attempt{'' if letter.attempts == 1 else 's'}"
    return f"dead-lettered ({letter.kind}): {what}, {letter.handler or 'no handler'}, {times}: {letter.reason}"


class Letter(NamedTuple):
    """An event that nobody tries again until it is replayed."""

    letter_id: str
    """Stays the same when it is put back and fails again."""
    kind: str
    """`invalid`, `failed`, `unfit`, `poison`, `lost handler`, `refresh`, `gap`, or `foreign`: not of this library."""
    channel: str
    payload: bytes
    handler: str
    attempts: int
    reason: str
    detail: str
    """The end of the traceback, if there was one."""
    id: str
    """The publisher's id of the event."""
    key: str
    position: str
    place: str
    """Where it stands among the letters, and so when it failed last; the same as its id until it is put back."""

    @property
    def replayable(self) -> bool:
        """Whether there is a handler (or view) to give it to; a gap is only a message."""
        return bool(self.handler) and self.kind != "gap"


class LetterGroup(msgspec.Struct, frozen=True):
    """Dead letters that ended for one reason."""

    kind: str
    channel: str
    handler: str
    reason: str
    """Numbers in it stand as N."""
    count: int
    first_ms: int
    last_ms: int
    newest: str
    """The id of the newest one."""


def same_reason(reason: str) -> str:
    """Return a reason without what differs from one letter to the next: numbers in it stand as N."""
    return _VARIES.sub("N", reason)


def grouped(letters: Iterable[Letter]) -> list[LetterGroup]:
    """Return the groups of some letters, the largest first. *letters*: the oldest first."""
    groups: dict[tuple[str, str, str, str], list[Letter]] = {}
    for letter in letters:
        same = (letter.kind, letter.channel, letter.handler, same_reason(letter.reason))
        groups.setdefault(same, []).append(letter)
    found = [
        LetterGroup(*same, len(each), _ms(each[0].place), _ms(each[-1].place), each[-1].letter_id)
        for same, each in groups.items()
    ]
    return sorted(found, key=lambda group: group.count, reverse=True)


def _ms(place: str) -> int:
    return int(place.partition("-")[0])
