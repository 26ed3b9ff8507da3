"""Whom an invalidation concerns: which calls of which identities a scope makes old. Pure.

A scope that names an identity (`user:7:orders`) is looked up; one that does not (`prices`) concerns who read last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cachebus.cache.foresight.prediction.forecaster import MOST_CHANGED
from cachebus.cache.foresight.prediction.repertoire import CallMade, Identity, Repertoire
from cachebus.cache.upkeep.reach import pattern_of
from cachebus.freshness.scopes import EVERYTHING
from cachebus.templates import escape, plain, unmarked

LOOK_S = 1.0
"""How often newcomers are looked up by name; five thousand take milliseconds."""


class Concerned(NamedTuple):
    """Calls of one identity that a scope makes old."""

    identity: Identity
    calls: list[CallMade]
    own: bool
    """Whether the scope names the identity."""


class Scoped(NamedTuple):
    """How the values of one view are named."""

    number: int
    identity: str
    key: str
    tags: tuple[str, ...]
    scopes_of: Callable[[CallMade], tuple[str, ...]]


class Affected:
    """Finds whom a scope concerns."""

    def __init__(self, people: Repertoire[Any]) -> None:
        self._people = people
        self._views: dict[int, Scoped] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], Scoped]]] = {"k:": [], "t:": [], "p:": []}
        self._by_text: dict[tuple[str, str], Identity] = {}
        self._known_of, self._looked_at = -1, float("-inf")

    def add(self, view: Scoped) -> None:
        """Take note of a view whose calls are expected."""
        self._views[view.number] = view
        self._patterns["k:"].append((pattern_of(view.key, group=view.identity), view))
        self._patterns["t:"] += [(pattern_of(tag, any_text=True, group=view.identity), view) for tag in view.tags]
        words = view.key.split(":")
        self._patterns["p:"] += [
            (pattern_of(":".join(words[:n]) + ":", group=view.identity), view) for n in range(1, len(words))
        ]

    def by(self, scope: str, now: float) -> Iterator[Concerned]:
        """Yield whom *scope* concerns, of those who are known here."""
        named: dict[Identity, set[int]] = {}
        others: set[int] = set(self._views) if scope == EVERYTHING else set()
        for pattern, view in self._patterns.get(scope[:2], ()):
            if (found := pattern.fullmatch(scope, 2)) is None:
                continue
            if not pattern.groups:
                others.add(view.number)
            elif (identity := self._texts(now).get((view.identity, unmarked(found[1])))) is not None:
                named.setdefault(identity, set()).add(view.number)
        for identity, numbers in named.items():
            yield from self._of(identity, numbers, scope, own=True)
        if others:
            for identity in self._people.newest(MOST_CHANGED):
                yield from self._of(identity, others, scope, own=False)

    def _of(self, identity: Identity, numbers: set[int], scope: str, *, own: bool) -> Iterator[Concerned]:
        person = self._people.get(identity)
        made = [call for call in person.calls if call[0] in numbers] if person is not None else []
        calls = [call for call in made if scope in self._views[call[0]].scopes_of(call)]
        if calls:
            yield Concerned(identity, calls, own)

    def _texts(self, now: float) -> Mapping[tuple[str, str], Identity]:
        """Return the identities by how keys and tags write them, as of a second ago at most."""
        if self._known_of != self._people.met and now - self._looked_at >= LOOK_S:
            self._known_of, self._looked_at = self._people.met, now
            self._by_text = {}
            for identity in self._people:
                name, value = identity
                self._by_text[name, plain(value)] = self._by_text[name, escape(value)] = identity
        return self._by_text
