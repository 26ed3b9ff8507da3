"""Repertoires: which calls each identity made lately. In this process only, bounded, with arguments as they were given.

Nothing of it is written anywhere: what is counted in Redis are contexts, which name templates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

E = TypeVar("E")

MOST_IDENTITIES = 5_000
MOST_CALLS = 16
"""Of one identity, the latest."""
COUNTED_FIRST = 1_000
COUNTED_SHARE = 4
"""Beyond the first identities a process meets, outcomes are counted for one in four: the same chances, for less."""

Identity = tuple[str, Hashable]
"""The name of the parameter and its value: `("user_id", 7)`."""
CallMade = tuple[Any, ...]
"""The number of a view, and the arguments of one call of it."""


class Habit:
    """One call of one identity."""

    __slots__ = ("at", "until")

    def __init__(self, at: float, until: float) -> None:
        self.at = at
        """When it was last read, seconds."""
        self.until = until
        """Until when the value lies ready, as far as this process knows."""


class Person(Generic[E]):
    """One identity."""

    __slots__ = ("calls", "expected", "is_counted", "ready_until")

    def __init__(self, *, is_counted: bool) -> None:
        self.calls: dict[CallMade, Habit] = {}
        """The latest last."""
        self.expected: dict[CallMade, E] = {}
        self.is_counted = is_counted
        self.ready_until = 0.0
        """Until then all of them lie ready, and there is nothing to expect."""

    def read(self, call: CallMade, at: float, until: float) -> None:
        """Make *call* the latest."""
        self.ready_until = min(self.ready_until, until)
        habit = self.calls.pop(call, None)
        if habit is None:
            habit = Habit(at, until)
            if len(self.calls) >= MOST_CALLS:
                del self.calls[next(iter(self.calls))]
        else:
            habit.at, habit.until = at, until
        self.calls[call] = habit


class Repertoire(Generic[E]):
    """The identities of one process, those that read last."""

    def __init__(self, most: int = MOST_IDENTITIES) -> None:
        self._most = most
        self._people: dict[Identity, Person[E]] = {}
        self.met = 0
        """Identities met so far, whether or not they are still known."""

    def __len__(self) -> int:
        return len(self._people)

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._people)

    def latest(self, identity: Identity) -> Person[E] | None:
        """Return an identity that is known, and make it the latest."""
        person = self._people.pop(identity, None)
        if person is not None:
            self._people[identity] = person
        return person

    def get(self, identity: Identity) -> Person[E] | None:
        """Return an identity that is known."""
        return self._people.get(identity)

    def meet(self, identity: Identity) -> tuple[Person[E], Person[E] | None]:
        """Return a new identity, and the one that makes room for it."""
        person: Person[E] = Person(is_counted=self.met < COUNTED_FIRST or self.met % COUNTED_SHARE == 0)
        self._people[identity] = person
        self.met += 1
        return person, self._people.pop(next(iter(self._people))) if len(self._people) > self._most else None

    def newest(self, most: int) -> list[Identity]:
        """Return those that read last, the latest first."""
        return list(islice(reversed(self._people), most))
