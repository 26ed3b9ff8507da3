"""Keys, tags and scopes: how a call becomes a name, and which invalidations reach it. Pure.

A key is words joined by ':'. Parameters are escaped, so none can add a ':' of its own: user 1 never reaches user 12,
and `order:*` never reaches `orders:…`. Tags are opaque strings; of a parameter only control characters are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from cachebus.errors import ConfigurationError
from cachebus.templates import UNFIT, unmarked

EVERYTHING = "*"
"""The scope every entry belongs to."""


_GLOB = re.compile(r"[*?\[]")


def key_scope(key: str) -> str:
    """Return the scope of exactly this key."""
    return "k:" + key


def tag_scope(tag: str) -> str:
    """Return the scope of everything that carries *tag*. Raises: ConfigurationError for an empty or unprintable tag."""
    return "t:" + _checked("tag", tag)


def prefix_scope(prefix: str) -> str:
    """Return the scope of every key that begins with *prefix*, which ends in ':' (or is empty: everything)."""
    if not prefix:
        return EVERYTHING
    if not _checked("prefix", prefix).endswith(":"):
        raise ConfigurationError(f"prefix: {prefix!r} must end in ':', so that it ends where a word of the key ends")
    return "p:" + prefix


def glob_scope(pattern: str) -> str:
    """Return the scope that covers every key *pattern* matches.

    A pattern without wildcards is that key. Otherwise the pattern is widened to its longest literal prefix that ends in
    ':': `shop:*` is exact, `user:*:orders` invalidates all of `user:`, `*:x` everything. Wide, never stale, O(1).
    Raises: ConfigurationError for what is no text, or an empty or unprintable one.
    """
    wildcard = _GLOB.search(_checked("pattern", pattern))
    if wildcard is None:
        return key_scope(pattern)
    return prefix_scope(pattern[: pattern.rfind(":", 0, wildcard.start()) + 1])


@lru_cache(maxsize=4096)
def prefix_scopes(parent: str) -> tuple[str, ...]:
    """Return the prefix scopes of every key directly under *parent* (which ends in ':', or is empty)."""
    words = parent.split(":")[:-1]
    return tuple("p:" + ":".join(words[: count + 1]) + ":" for count in range(len(words)))


def scopes_of(key: str, tags: Iterable[str] = ()) -> tuple[str, ...]:
    """Return every scope an entry belongs to: itself, each ':'-prefix of its key, each tag, everything.

    A key with marks (`row:7%int`) also belongs to the scopes of the unmarked one: who invalidates `row:7` means both.
    """
    if "%" not in key:
        return ("k:" + key, *prefix_scopes(key[: key.rfind(":") + 1]), *["t:" + tag for tag in tags], EVERYTHING)
    named = (key,) if (bare := unmarked(key)) == key else (key, bare)
    scopes = [scope for name in named for scope in ("k:" + name, *prefix_scopes(name[: name.rfind(":") + 1]))]
    scopes += ["t:" + tag for tag in tags]
    return (*(scopes if bare is key else dict.fromkeys(scopes)), EVERYTHING)


def names(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return names as they are given: several, or one by itself. Raises: ConfigurationError for what is neither."""
    if isinstance(given, str):
        return (given,)
    what: object = given
    if isinstance(what, bytes) or not isinstance(what, Iterable):  # bytes would be numbers
        raise ConfigurationError(f'{given!r} is neither a name nor several; write "user:7" or ["user:7", "orders"]')
    return tuple(given)


def scopes_to_invalidate(
    *, keys: str | Iterable[str] = (), tags: str | Iterable[str] = (), prefixes: str | Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the scopes of an invalidation, checked; a lone string is one name.

    Raises: ConfigurationError naming the bad key, tag or prefix.
    """
    scopes = [
        *map(checked_key_scope, names(keys)),
        *map(tag_scope, names(tags)),
        *map(prefix_scope, names(prefixes)),
    ]
    return tuple(dict.fromkeys(scopes))


def checked_key_scope(key: str) -> str:
    """Return the scope of *key*. Raises: ConfigurationError for an empty or unprintable key."""
    return key_scope(_checked("key", key))


def _checked(what: str, name: object) -> str:
    # `isprintable` is stricter, and answers for nearly every name in a fifth of the time.
    if not isinstance(name, str) or not name or (not name.isprintable() and UNFIT.search(name)):
        raise ConfigurationError(f"{what}: {name!r} must be text without control characters or lone surrogates")
    return name
