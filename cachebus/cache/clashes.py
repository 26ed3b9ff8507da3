"""Whether two views could give two calls the same key: each would serve what the other has stored. Pure."""

from __future__ import annotations

import string
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from cachebus.cache.binding import Binding
from cachebus.cache.view import View
from cachebus.errors import ConfigurationError

Signs = frozenset[str]
"""What may stand at one place of a key."""
Word = tuple[Signs | tuple[Signs], ...]
"""One word of a key, sign for sign; within a tuple: any number of such signs."""

_ANY = frozenset(string.ascii_letters + string.digits + "_.@+=,~-%")
_NUMBER = frozenset("-+." + string.digits + "eEinfaN")
_ALPHABETS: dict[type, Signs] = {
    int: frozenset("-" + string.digits),
    bool: frozenset("TrueFals"),
    float: _NUMBER,
    Decimal: _NUMBER,
    UUID: frozenset("-" + string.hexdigits.lower()),
}
"""What values of these types are written with. Of other types: with any."""


def refuse_shared_keys(view: View[Any, Any], others: dict[str, View[Any, Any]]) -> None:
    """Raise ConfigurationError where one of *others* may have a key of *view*; one declared again makes room for it."""
    for name, other in list(others.items()):
        if not may_clash(view.binding, other.binding):
            continue
        if other.origin != view.origin or getattr(view.function, "__closure__", None):
            raise ConfigurationError(
                f"view {view.name!r}: {view.origin} would share its values with {other.origin}, whose key is "
                f"{other.name!r}; give it another key, such as '{view.__name__}:' and its parameters"
            )
        del others[name]  # its module was loaded again, or the cell of its notebook run again


def may_clash(one: Binding, other: Binding) -> bool:
    """Return whether some call of each has the same key, by the templates and the declared types of the parameters."""
    words, others = list(_words(one)), list(_words(other))
    return len(words) == len(others) and all(map(_meet, words, others))


def _words(binding: Binding) -> Iterator[Word]:
    """Yield what each word of the keys, between two ':', is made of."""
    word: list[Signs | tuple[Signs]] = []
    for literal, field in binding.template.parts:
        for sign in literal:
            if sign == ":":
                yield tuple(word)
                word = []
            else:
                word.append(frozenset(sign))
        if field is not None:
            kinds = binding.kinds_of(field)
            signs = frozenset[str]().union(*[_ALPHABETS.get(kind, _ANY) for kind in kinds]) if kinds else _ANY
            word += [signs, (signs,)]
    yield tuple(word)


@cache
def _meet(one: Word, other: Word) -> bool:
    """Return whether there is a text that both can be."""
    if not one or not other:
        return all(isinstance(place, tuple) for place in one or other)
    here, there = one[0], other[0]
    if isinstance(here, tuple) and isinstance(there, tuple):
        return _meet(one[1:], other) or _meet(one, other[1:])
    if isinstance(here, tuple):
        return _meet(one[1:], other) or (not here[0].isdisjoint(there) and _meet(one, other[1:]))
    if isinstance(there, tuple):
        return _meet(other, one)
    return not here.isdisjoint(there) and _meet(one[1:], other[1:])
