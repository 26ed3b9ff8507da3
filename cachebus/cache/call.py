"""One read, described: what is wanted, how strictly, and what it brings home."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from cachebus.cache.policy import ViewPolicy
from cachebus.cache.stats import ViewStats
from cachebus.cache.values.codec import Codec
from cachebus.cache.values.plain_codec import PlainCodec
from cachebus.freshness.clock import Born
from cachebus.freshness.scopes import checked_key_scope, scopes_of
from cachebus.redis.keyspace import Names
from cachebus.templates import stored_name


class Demand(NamedTuple):
    """What a caller demands beyond the usual guarantee."""

    fresh_after: str = ""
    """Nothing older than this clock, `<number>.<era>` (`Clock`)."""
    strict: bool = False
    """Nothing older than the ledger knows when the read begins."""
    load_only: bool = False
    """Load, neither serve nor store."""
    serve_only: bool = False
    """Serve what there is; what is loaded is for the caller alone. Where the load may see what is not committed."""


def with_words(demand: Demand, kwargs: dict[str, Any]) -> Demand:
    """Return *demand* with what a call adds in words that every view has; they leave *kwargs*."""
    after, strict = _clock(kwargs.pop("fresh_after", None)), kwargs.pop("strict", demand.strict)
    return demand._replace(fresh_after=after or demand.fresh_after, strict=bool(strict))


def with_options(demand: Demand, fresh_after: object, strict: object) -> Demand:
    """Return *demand* with what a block of reads demands instead."""
    return demand._replace(fresh_after=_clock(fresh_after), strict=bool(strict))


def _clock(given: object) -> str:
    if given is not None and not isinstance(given, str):
        raise TypeError(f"fresh_after: {given!r} is not a clock; pass on the text that invalidate() returned")
    return given or ""


class Warmed(NamedTuple):
    """What `View.warm` found or made: the clock the entry was born at, and whether the loader ran here."""

    born: Born
    loaded: bool


USUAL = Demand()

PLAIN = "(plain keys)"
"""The place of plain values among the views."""

MOST_NAMED = 4096
"""Plain keys whose entry's name and scopes are remembered; about 2 MB."""

AnyCodec = Codec | PlainCodec


Load = Callable[[], Awaitable[Any]]
"""The loader with its arguments, as one reader brings it."""


class CallKind(msgspec.Struct, eq=False):
    """What the calls of one view have in common, or plain values of one type and TTL."""

    codec: AnyCodec
    policy: ViewPolicy
    stats: ViewStats
    view: str = PLAIN
    """The name they are counted under."""
    plain: bool = False
    """Whether they are plain values: somebody may `set` one at any moment."""
    ttl_of: Callable[[Any], int] | None = None
    """TTL by value, milliseconds, where it depends on the value."""
    tags_of: Callable[[Any], tuple[str, ...]] | None = None
    """Tags by value, where they depend on the value."""
    keep: Callable[[Any], object] | None = None
    """Whether a loaded value is stored; None: each is."""
    leaning: int = 0
    """What was lately found in Redis, hits less misses (`Lookup.looked`)."""
    covered_since: int = -1
    """The `Freshness.since` that is older than any of their entries: the table can judge all of them."""

    def ttl_ms(self, value: Any) -> int:
        """Return how long *value* is fresh."""
        if value is None and self.policy.negative_ttl_ms:
            return self.policy.negative_ttl_ms
        return self.ttl_of(value) if self.ttl_of is not None else self.policy.ttl_ms


class Call(msgspec.Struct, frozen=True):
    """One call with its arguments: everything a read of it needs but the loader. May be kept and used again."""

    key: str
    entry: str
    scopes: tuple[str, ...]
    tags: tuple[str, ...]
    kind: CallKind

    def all_tags(self, value: Any) -> tuple[str, ...]:
        """Return the tags of *value*: those known before the load, and those it brings."""
        tags_of = self.kind.tags_of
        return tuple(dict.fromkeys((*self.tags, *tags_of(value)))) if tags_of is not None else self.tags

    def own(self, value: Any, payload: bytes | None) -> Any:
        """Return *value* as its caller may keep it: shared where nobody can change it, else decoded afresh."""
        return value if payload is None else self.kind.codec.decode(payload)


class Value(msgspec.Struct, frozen=True, gc=False):
    """What a read brings home. `payload` is what each caller decodes for itself; None: `value` may be shared."""

    value: Any
    payload: bytes | None
    born: Born
    loaded: bool
    late_scopes: tuple[str, ...] = ()
    """Scopes known only after the load."""
    renew_ms: int = 0
    """Non-zero: somebody should renew it, in the background, to live longer than this."""
    kept: bool = True
    """Whether the view's `keep=` let it be stored."""


def plain_name(names: Names, key: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the entry of a plain value, and the scopes of one without tags.

    Raises: ConfigurationError for what can be no key.
    """
    checked_key_scope(key)
    return names.entry(stored_name(key), PlainCodec.fingerprint), scopes_of(key)
