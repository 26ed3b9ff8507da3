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


class Warmed(NamedTuple):
    """What `View.warm` found or made: the clock the entry was born at, and whether the loader ran here."""

    born: Born
    loaded: bool


USUAL = Demand()

PLAIN = "(plain keys)"
"""The place of plain values among the views."""

AnyCodec = Codec | PlainCodec


Load = Callable[[], Awaitable[Any]]
"""The loader with its arguments, as one reader brings it."""


class Call(msgspec.Struct):
    """One view with one set of arguments: everything a read of it needs but the loader. May be kept and used again."""

    key: str
    entry: str
    scopes: tuple[str, ...]
    tags: tuple[str, ...]
    codec: AnyCodec
    policy: ViewPolicy
    stats: ViewStats
    ttl_of: Callable[[Any], int] | None = None
    """TTL by value, milliseconds, where it depends on the value."""
    tags_of: Callable[[Any], tuple[str, ...]] | None = None
    """Tags by value, where they depend on the value."""
    keep: Callable[[Any], object] | None = None
    """Whether a loaded value is stored; None: each is."""
    plain: bool = False
    """Whether it is a plain value: somebody may `set` it at any moment."""
    view: str = PLAIN
    """The name it is counted under."""
    floor: int = 0
    """Least `born` acceptable, as of `floor_version` (see `Reader`)."""
    floor_version: int = -1

    def ttl_ms(self, value: Any) -> int:
        """Return how long *value* is fresh."""
        if value is None and self.policy.negative_ttl_ms:
            return self.policy.negative_ttl_ms
        return self.ttl_of(value) if self.ttl_of is not None else self.policy.ttl_ms

    def all_tags(self, value: Any) -> tuple[str, ...]:
        """Return the tags of *value*: those known before the load, and those it brings."""
        return tuple(dict.fromkeys((*self.tags, *self.tags_of(value)))) if self.tags_of is not None else self.tags

    def own(self, value: Any, payload: bytes | None) -> Any:
        """Return *value* as its caller may keep it: shared where nobody can change it, else decoded afresh."""
        return value if payload is None else self.codec.decode(payload)


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
