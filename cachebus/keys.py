"""Keys, tags and scopes: how a call becomes a name, and which invalidations reach it. Pure.

A key is words joined by ':'. Parameters are escaped, so none can add a ':' of its own: user 1 never reaches user 12,
and `market:*` never reaches `marketing:…`. Tags are opaque strings and are never escaped.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from string import Formatter
from typing import Any

from cachebus.errors import ConfigurationError

EVERYTHING = "*"
"""The scope every entry belongs to."""

LONGEST_NAME = 200
"""Longer keys are stored under a digest; the scopes still come from the key itself."""

_WORDS = (str, int, float, type(None), datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@+=,~-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GLOB = re.compile(r"[*?\[]")


def escape(value: object) -> str:
    """Return *value* as one word of a key: `str()` of it, enums by value, anything unusual as %XX."""
    if type(value) is int:
        return str(value)
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, _WORDS):
        raise TypeError(f"{type(value).__name__} cannot be part of a key; pass an id, not the object")
    text = str(value)
    if text.isalnum() and text.isascii():
        return text
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text) or "%"


def plain(value: object) -> str:
    """Return *value* as it stands in a tag: `str()` of it, enums by value."""
    return str(value.value) if isinstance(value, Enum) else str(value)


class Template:
    """A text with named parameters, `"portfolio:{user_id}:summary"`, formatted the same way everywhere."""

    def __init__(self, text: str, parameters: Iterable[str], *, what: str, word: Callable[[object], str]) -> None:
        if not text or _CONTROL.search(text):
            raise ConfigurationError(f"{what}: {text!r} must be text without control characters")
        known = frozenset(parameters)
        self.text = text
        self._word = word
        self.parts: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in Formatter().parse(text):
            if name is not None and (spec or conversion or name not in known):
                hint = f"parameters are {', '.join(sorted(known)) or 'none'}"
                raise ConfigurationError(f"{what}: {{{name}}} in {text!r} is not a plain parameter name; {hint}")
            self.parts.append((literal, name))
        self.fields = frozenset(name for _, name in self.parts if name is not None)

    def format(self, arguments: Mapping[str, Any]) -> str:
        """Return the text for these arguments."""
        word = self._word
        return "".join(literal if name is None else literal + word(arguments[name]) for literal, name in self.parts)

    def source(self, before: str = "") -> str:
        """Return this text, *before* in front, as a Python expression of the parameters and the word function."""
        return _source([(before, None), *self.parts], self._word)

    def scopes_source(self, tags: Iterable[Template]) -> str:
        """Return `scopes_of` this key and *tags* as a Python expression, a tuple."""
        prefixes = [
            _source([("p:", None), *self.parts[:at], (literal[: colon.end()], None)], self._word)
            for at, (literal, _) in enumerate(self.parts)
            for colon in re.finditer(":", literal)
        ]
        scopes = [self.source("k:"), *prefixes, *[tag.source("t:") for tag in tags], repr(EVERYTHING)]
        return f"({', '.join(scopes)})"


def _source(parts: Iterable[tuple[str, str | None]], word: Callable[[object], str]) -> str:
    pieces = [repr(literal) + (f" + {word.__name__}({name})" if name else "") for literal, name in parts]
    return " + ".join(pieces)


def key_scope(key: str) -> str:
    """Return the scope of exactly this key."""
    return "k:" + key


def tag_scope(tag: str) -> str:
    """Return the scope of everything that carries *tag*. Raises: ConfigurationError for an empty or unprintable tag."""
    if not tag or _CONTROL.search(tag):
        raise ConfigurationError(f"tag: {tag!r} must be text without control characters")
    return "t:" + tag


def prefix_scope(prefix: str) -> str:
    """Return the scope of every key that begins with *prefix*, which ends in ':' (or is empty: everything)."""
    if not prefix:
        return EVERYTHING
    if not prefix.endswith(":") or _CONTROL.search(prefix):
        raise ConfigurationError(f"prefix: {prefix!r} must end in ':', so that it ends where a word of the key ends")
    return "p:" + prefix


def glob_scope(pattern: str) -> str:
    """Return the scope that covers every key *pattern* matches.

    A pattern without wildcards is that key. Otherwise the pattern is widened to its longest literal prefix that ends in
    ':': `market:*` is exact, `user:*:trades` invalidates all of `user:`, `*:x` everything. Wide, never stale, O(1).
    """
    wildcard = _GLOB.search(pattern)
    if wildcard is None:
        return key_scope(pattern)
    return prefix_scope(pattern[: pattern.rfind(":", 0, wildcard.start()) + 1])


@lru_cache(maxsize=4096)
def prefix_scopes(parent: str) -> tuple[str, ...]:
    """Return the prefix scopes of every key directly under *parent* (which ends in ':', or is empty)."""
    words = parent.split(":")[:-1]
    return tuple("p:" + ":".join(words[: count + 1]) + ":" for count in range(len(words)))


def scopes_of(key: str, tags: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every scope an entry belongs to: itself, each ':'-prefix of its key, each tag, everything."""
    return (
        "k:" + key,
        *prefix_scopes(key[: key.rfind(":") + 1]),
        *["t:" + tag for tag in tags],
        EVERYTHING,
    )


def scopes_to_invalidate(
    *, keys: Iterable[str] = (), tags: Iterable[str] = (), prefixes: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the scopes of an invalidation, checked. Raises: ConfigurationError naming the bad key, tag or prefix."""
    scopes = [*map(checked_key_scope, keys), *map(tag_scope, tags), *map(prefix_scope, prefixes)]
    return tuple(dict.fromkeys(scopes))


def checked_key_scope(key: str) -> str:
    """Return the scope of *key*. Raises: ConfigurationError for an empty or unprintable key."""
    if not key or _CONTROL.search(key):
        raise ConfigurationError(f"key: {key!r} must be text without control characters")
    return key_scope(key)


def stored_name(key: str) -> str:
    """Return the name *key* is stored under: itself, or a digest when it is long or would break a hash tag."""
    if len(key) <= LONGEST_NAME and "{" not in key and "}" not in key:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{re.sub('[{}]', '', key[:60])}~{digest}"
