"""Names whose values are never stored: credentials, and whatever else the application says. Pure.

A name is compared whole, by its letters and digits, without case: `password`, `Pass-Word` and `pass word` are one name,
`password_hash` is another (refused too), `token_count` and `next_page_token` are neither.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from cachebus.cache.values.shapes import fields_of
from cachebus.foreign import columns_of, is_row, is_row_mapping

CREDENTIALS = frozenset(
    {
        *("password", "passwd", "pwd", "passphrase", "passcode", "password_hash", "hashed_password", "credentials"),
        *("secret", "secret_key", "client_secret", "api_secret", "secret_access_key"),
        *("token", "access_token", "refresh_token", "id_token", "auth_token", "bearer_token", "session_token"),
        *("api_key", "api_token", "private_key", "access_key"),
    }
)
"""What is refused unless the application says otherwise."""
ALL = "*"
MOST_NAMES = 4096
"""Verdicts remembered: field names repeat, but the keys of a dictionary may be data."""

_BETWEEN = re.compile(r"[\W_]+")
_LEAVES = frozenset({type(None), bool, int, float, str, bytes})


class NeverCached:
    """The names one cache refuses: `CREDENTIALS`, and *names*. `-name` allows one again, `-*` all of them.

    The last word counts: `NeverCached(["-token", "email"])`, `NeverCached(["-*", "balance"])`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(map(_normal, CREDENTIALS))
        """What is refused: letters and digits, without case. Another object after each `amend`."""
        self._known: dict[str, bool] = {}
        self.amend(names)

    def amend(self, names: Iterable[str]) -> None:
        """Refuse *names* too, allow those that begin with '-'."""
        refused = set(self.names)
        for name in [names] if isinstance(names, str) else names:
            if name == "-" + ALL:
                refused.clear()
            elif name.startswith("-"):
                refused.discard(_normal(name))
            else:
                refused.add(_normal(name))
        self.names = frozenset(refused - {""})
        self._known = {}

    def __contains__(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MOST_NAMES:
                self._known.clear()
            known = self._known[name] = _normal(name) in self.names
        return known

    def first(self, names: Iterable[str]) -> str | None:
        """Return the first refused name, or None."""
        return next((name for name in names if name in self), None)

    def find(self, value: Any) -> str | None:
        """Return a refused name that *value* carries at any depth, or None. *value* has no cycles."""
        pending, known = [value], self._known
        while pending:
            item = pending.pop()
            if isinstance(item, dict):
                for name, inner in item.items():
                    if known.get(name) is not False:
                        text = name.decode(errors="replace") if isinstance(name, bytes) else name
                        if isinstance(text, str) and text in self:
                            return text
                    if type(inner) not in _LEAVES:
                        pending.append(inner)
                continue
            if isinstance(item, list | tuple | set | frozenset | deque):
                pending += [inner for inner in item if type(inner) not in _LEAVES]
            elif type(item) is msgspec.Raw:
                pending.append(msgspec.msgpack.decode(item))
            names, inside = _inside(item)
            if (refused := self.first(names)) is not None:
                return refused
            pending += inside
        return None


def _inside(item: Any) -> tuple[Iterable[str], list[Any]]:
    """Return the names of an object's fields, as written and as stored, and what they hold."""
    kind = type(item)
    if is_row(kind) or is_row_mapping(kind):
        return (), [columns_of(item)]
    fields = fields_of(kind)
    inside = [getattr(item, name, None) for name, _ in fields]
    if extra := getattr(item, "__pydantic_extra__", None):
        inside.append(extra)
    return (name for field in fields for name in field), inside


def _normal(name: str) -> str:
    """Return a name's letters and digits, in the form that every way to write them has in common."""
    if name.isascii() and name.isalnum():
        return name.lower()
    return _BETWEEN.sub("", unicodedata.normalize("NFKC", name)).casefold()
