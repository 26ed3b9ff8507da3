"""Which views an invalidation may reach: scopes as they are named, against the templates of views. Pure.

A view whose tags depend on its values is reached by no tag that can be told from its templates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import NamedTuple, Protocol

from cachebus.freshness.scopes import EVERYTHING

MOST_KNOWN = 10_000
"""Scopes whose views are remembered; beyond them it begins again."""


Matches = Callable[[str], bool]


class Templates(NamedTuple):
    """How one view names its values."""

    view: str
    """The template of its keys, which is its name."""
    tags: tuple[str, ...]


class Under(NamedTuple):
    """What a scope is of."""

    views: tuple[str, ...]
    """Names of views that may have values under it."""
    tags: tuple[str, ...]
    """Templates of tags that may make it."""


class Tagged(Protocol):
    """What is asked of a view."""

    @property
    def tag_templates(self) -> list[str]: ...


class Reach:
    """Says which views of the deployment a scope may reach. Each scope is worked out once."""

    def __init__(self, own: Mapping[str, Tagged]) -> None:
        """*own*: the views of this process, by name; it may grow."""
        self._own = own
        self._elsewhere: list[Templates] = []
        self._of: dict[str, Under] = {}
        self._all = Under((), ())
        self._made: dict[str, list[tuple[Matches, Under]]] = {}
        """Kind of scope -> what makes such names, and of what."""
        self._compiled = -1

    def of(self, scope: str) -> Under:
        """Return the views that may have values under *scope*, and the tags it may be."""
        if self._compiled != len(self._own):
            self._compile()
        known = self._of.get(scope)
        if known is None:
            if len(self._of) >= MOST_KNOWN:
                self._of.clear()
            known = self._of[scope] = self._find(scope)
        return known

    def learn(self, views: list[Templates]) -> None:
        """Take note of all views there are, those of other processes among them."""
        if views != self._elsewhere:
            self._elsewhere, self._compiled = views, -1

    def _find(self, scope: str) -> Under:
        if scope == EVERYTHING:
            return self._all
        name = scope[2:]
        found = [under for matches, under in self._made.get(scope[:2], ()) if matches(name)]
        if len(found) == 1:
            return found[0]
        views = dict.fromkeys(view for under in found for view in under.views)
        return Under(tuple(views), tuple(tag for under in found for tag in under.tags))

    def _compile(self) -> None:
        views = {view.view: view.tags for view in self._elsewhere}
        views |= {name: tuple(view.tag_templates) for name, view in self._own.items()}
        by_tag: dict[str, list[str]] = {}
        for name, tags in views.items():
            for tag in dict.fromkeys(tags):
                by_tag.setdefault(tag, []).append(name)
        self._made = {
            "k:": [(_makes(name), Under((name,), ())) for name in views],
            "t:": [(_makes(tag, any_text=True), Under(tuple(names), (tag,))) for tag, names in by_tag.items()],
            "p:": [(_begins_with(name), Under((name,), ())) for name in views],
        }
        self._all, self._compiled = Under(tuple(views), ()), len(self._own)
        self._of.clear()


def _makes(template: str, *, any_text: bool = False) -> Matches:
    """Return whether a name may be of this template, as a function."""
    (begin, first, *_), *rest = [*Formatter().parse(template)] or [("", None, None, None)]
    if first is None:
        return begin.__eq__
    if not rest and any_text:
        return lambda name: name.startswith(begin)
    whole = pattern_of(template, any_text=any_text).fullmatch
    return lambda name: name.startswith(begin) and whole(name) is not None  # the first rules out most at once


def _begins_with(template: str) -> Matches:
    """Return whether a prefix, which ends in ':', may begin keys of this template, as a function."""
    patterns = [pattern_of(word) for word in template.split(":")]

    def matches(prefix: str) -> bool:
        words = prefix.split(":")[:-1]
        return len(words) < len(patterns) and all(
            pattern.fullmatch(word) for pattern, word in zip(patterns, words, strict=False)
        )

    return matches


def pattern_of(template: str, *, any_text: bool = False, group: str | None = None) -> re.Pattern[str]:
    """Return what matches every text that *template* makes; a parameter of a key holds no ':', one of a tag may.

    *group*: the parameter whose text is a group, where it stands first.
    """
    parameter = ".*" if any_text else "[^:]*"
    pieces = []
    for literal, name, _, _ in Formatter().parse(template):
        pieces.append(re.escape(literal))
        if name is not None:
            pieces.append(f"({parameter})" if name == group else parameter)
            group = None if name == group else group
    return re.compile("".join(pieces), re.DOTALL)
