"""A view: a function whose results are cached under a key template. A plain object at import time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import msgspec

from cachebus.call import USUAL, Call, Demand
from cachebus.codec import Codec
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.keys import Template, escape, plain, stored_name, tag_scope
from cachebus.link import now_s
from cachebus.memory import MOST_HITS, Held
from cachebus.policy import Policy
from cachebus.shelf import TRUST_S
from cachebus.stats import ViewStats

if TYPE_CHECKING:
    from cachebus.cache import Cache
    from cachebus.ledger import Clock

P = ParamSpec("P")
R = TypeVar("R")
Tags = Sequence[str] | Callable[[Any], Iterable[str]]
Names = tuple[str, ...]

demanded: ContextVar[Demand] = ContextVar("cachebus_demand", default=USUAL)
"""What reads in this context demand (`Cache.reading`, `Cache.loading_only`)."""

SAMPLE_HITS = 16
"""One in so many memory hits is noticed: for what is popular, and for the consistency sampler."""
SAMPLE_READS = 2
"""The same of reads that memory did not answer; each of them is a round trip anyway."""
CRITICAL_TTL_MS = 60_000
"""Whoever looks for what ends soon, within the last quarter of a TTL, must come by at least once in it."""

_RESERVED = frozenset({"fresh_after", "strict"})


class Warmed(NamedTuple):
    """What `View.warm` found or made: the clock the entry was born at, and whether the loader ran here."""

    born: int
    loaded: bool


class View(Generic[P, R]):
    """A cached function. Call it like the function; `fresh_after=` and `strict=` may be added to any call.

    `await view(7)` answers from memory, from Redis, or from one load in the whole cluster.
    """

    def __init__(  # noqa: PLR0913 - what a decorator line may say
        self,
        cache: Cache,
        function: Callable[P, Awaitable[R]],
        template: str,
        policy: Policy,
        *,
        tags: Tags = (),
        ttl_of: Callable[[Any], Duration] | None = None,
        critical: bool = False,
        dictionary: bool = False,
        identity: str | None = None,
        not_in_key: Iterable[str] = (),
    ) -> None:
        self.name = template
        """The key template: the name of this view in statistics and metrics."""
        self.function = function
        self.policy = policy
        self.stats = ViewStats()
        self._cache = cache
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", template)
        self.__wrapped__ = function
        what = f"view {template!r}"
        if critical and policy.ttl_ms < CRITICAL_TTL_MS:
            raise ConfigurationError(
                f"{what}: critical needs a ttl of {CRITICAL_TTL_MS // 1000} s or more: "
                "it is looked at a few times a TTL"
            )
        self.critical = critical
        """Whether it is renewed ahead of its end for whoever reads it."""
        self._sample_hits, self._sample_reads = (1, 1) if critical else (SAMPLE_HITS, SAMPLE_READS)
        signature = inspect.signature(function, eval_str=True)
        names = [name for name in signature.parameters if name not in set(not_in_key)]
        self._template = Template(template, signature.parameters, what=what, word=escape)
        self._check_parameters(what, signature, names)
        self._tags_of = tags if callable(tags) else None
        static = () if callable(tags) else tuple(tags)
        self._tags = [Template(tag, signature.parameters, what=f"{what}: tag", word=plain) for tag in static]
        self._ttl_of = ttl_of
        self.identity = self._identity(what, identity, signature)
        declared = signature.return_annotation
        self.codec = Codec(Any if declared is inspect.Signature.empty else declared, what)
        self.dictionary = f"{template}:{self.codec.fingerprint}" if dictionary else ""
        """Names the zstd dictionary its values share, '' where they are stored without one."""
        self._signature = signature
        self._read = 0
        self._bind, self.key, self._tags_known, self._scopes = _compile(signature, self._template, self._tags)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value: from memory, from Redis, or from one load in the cluster.

        Memory: no round trip. Redis: one, shared with other reads of this loop tick. Load and fill: two.
        Raises: what the loader raises; never anything because Redis is away.
        """
        held = self.held(*args) if not kwargs else None
        if held is None:
            return await self.read_with(None, args, kwargs)
        value = self.take(held)
        if not self.stats.l1_hits % self._sample_hits:
            self._cache.noticed(self, args, weight=self._sample_hits, held=held)
        return value

    def held(self, *args: Any) -> Held | None:
        """Return what memory holds for a call, if it may be served as it is. Any thread; no round trip."""
        reader = self._cache.reader
        if reader is None or demanded.get() is not USUAL:
            return None
        held = reader.memory.held.get(self.key(*args))
        # In time, nothing invalidated since it was last looked at, and not in a process that was stalled.
        if (
            held is None
            or held.checked != reader.freshness.version
            or (now := now_s()) >= held.early_at
            or now - reader.freshness.heard_at > TRUST_S
        ):
            return None
        return held

    def take(self, held: Held) -> R:
        """Return the value of a hit as this caller may keep it, and count it."""
        if held.hits < MOST_HITS:
            held.hits += 1
        self.stats.l1_hits += 1
        value: R = held.value if held.payload is None else self.codec.decode(held.payload)
        return value

    async def read_with(
        self, load: Callable[[], Awaitable[R]] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> R:
        """Read through memory, Redis and the load; *load* replaces running the function here."""
        demand = demanded.get()
        if kwargs and not _RESERVED.isdisjoint(kwargs):
            demand = Demand(
                int(kwargs.pop("fresh_after", demand.fresh_after) or 0), bool(kwargs.pop("strict", demand.strict))
            )
        arguments: dict[str, Any] = self._bind(*args, **kwargs)
        if load is None:
            load = partial(self.load, *args, **kwargs)
        anonymous = self.identity is not None and arguments[self.identity] is None
        if anonymous or demand.load_only or not self._cache.enabled:
            self.stats.bypassed += 1
            return await load()
        reader = self._cache.reader_here or await self._cache.connected()
        self._read += 1
        if not self._read % self._sample_reads:
            self._cache.noticed(self, tuple(arguments.values()), weight=self._sample_reads)
        value: R = await reader.read(self._call(args, kwargs), load, demand)
        return value

    async def load(self, *args: Any, **kwargs: Any) -> R:
        """Run the function itself, uncached. A plain function runs in a thread."""
        if inspect.iscoroutinefunction(self.function):
            return await self.function(*args, **kwargs)
        result: Any = await asyncio.to_thread(self.function, *args, **kwargs)
        return cast("R", await result if inspect.isawaitable(result) else result)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Invalidate and load now; returns the new value. Three round trips. Safe to repeat."""
        clock = await self.invalidate(*args, **kwargs)
        return await self.read_with(None, args, {**kwargs, "fresh_after": clock})

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Clock:
        """Make this entry unreadable everywhere; returns the clock to pass on as `fresh_after`. One round trip."""
        self.stats.invalidations += 1
        return await self._cache.invalidate(keys=(self.key(*args, **kwargs),))

    async def warm(self, *args: P.args, **kwargs: P.kwargs) -> Warmed:
        """See to it that a valid entry with a good part of its TTL left exists; load it here unless another does."""
        reader = await self._cache.connected()
        load = partial(self.load, *args, **kwargs)
        value = await reader.warm(self._call(args, kwargs), load, demanded.get())
        return Warmed(value.born, value.loaded)

    # -- naming -----------------------------------------------------------------------------------------------------

    key: Callable[..., str]
    """`view.key(7)` is the logical key of that call."""

    def tags(self, *args: P.args, **kwargs: P.kwargs) -> list[str]:
        """Return the tags of this call that are known before the load."""
        return list(self._tags_known(*args, **kwargs))

    @property
    def tag_templates(self) -> list[str]:
        """The tags as declared."""
        return [tag.text for tag in self._tags]

    def encode_arguments(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """Return the arguments as JSON, to be loaded by another process. Raises: TypeError."""
        return msgspec.json.encode(list(self._bind(*args, **kwargs).values()))

    def decode_arguments(self, encoded: bytes) -> tuple[Any, ...]:
        """Return arguments for a call, converted to the declared types. Raises: msgspec.ValidationError."""
        values = msgspec.json.decode(encoded, type=list[Any])
        hints = [parameter.annotation for parameter in self._signature.parameters.values()]
        if len(values) != len(hints):
            raise msgspec.ValidationError(f"{self.name}: {len(hints)} arguments expected, got {len(values)}")
        return tuple(
            value if hint is inspect.Parameter.empty else msgspec.convert(value, hint)
            for value, hint in zip(values, hints, strict=True)
        )

    def __repr__(self) -> str:
        return f"<view {self.name!r}>"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        key = self.key(*args, **kwargs)
        names = self._cache.names
        stored = stored_name(key)
        return Call(
            key,
            names.entry(stored, self.codec.fingerprint),
            names.lease(stored, self.codec.fingerprint),
            self._scopes(*args, **kwargs),
            self._tags_known(*args, **kwargs),
            self.codec,
            self.policy,
            self.stats,
            self._ttl_ms if self._ttl_of is not None else None,
            self._value_tags if self._tags_of is not None else None,
            self.dictionary,
        )

    def _ttl_ms(self, value: Any) -> int:
        assert self._ttl_of is not None  # noqa: S101 - asked only then
        return milliseconds(self._ttl_of(value), f"view {self.name!r}: ttl of the value")

    def _value_tags(self, value: Any) -> tuple[str, ...]:
        assert self._tags_of is not None  # noqa: S101 - asked only then
        return tuple(tag_scope(tag)[2:] for tag in self._tags_of(value))

    def _check_parameters(self, what: str, signature: inspect.Signature, names: Sequence[str]) -> None:
        """Every parameter shapes the result, so every parameter is in the key, unless the view says otherwise."""
        for parameter in signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ConfigurationError(f"{what}: parameter {parameter} cannot be part of a key; name each parameter")
            if parameter.name in _RESERVED:
                raise ConfigurationError(f"{what}: parameter {parameter.name!r} is a word of every view; rename it")
        missing = [name for name in names if name not in self._template.fields]
        if missing:
            raise ConfigurationError(
                f"{what}: parameter {missing[0]!r} shapes the result but is not in the key; "
                f"add {{{missing[0]}}}, or say not_in_key=[{missing[0]!r}]"
            )

    def _identity(self, what: str, identity: str | None, signature: inspect.Signature) -> str | None:
        if identity is None:
            return "user_id" if "user_id" in self._template.fields else None
        if identity not in self._template.fields:
            names = ", ".join(signature.parameters) or "none"
            raise ConfigurationError(f"{what}: identity {identity!r} is not in the key (parameters: {names})")
        return identity


def _compile(
    signature: inspect.Signature, template: Template, tags: Sequence[Template]
) -> tuple[Callable[..., dict[str, Any]], Callable[..., str], Callable[..., Names], Callable[..., Names]]:
    """Return functions with the view's own signature: arguments as a dict, the key, the tags, the scopes.

    Compiled once, as dataclasses do: binding a signature at each call costs more than the whole rest of a hit.
    """
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    defaults = {f"_{p.name}": p.default for p in parameters if p.default is not inspect.Parameter.empty}
    head = ", ".join(
        p.name if p.default is p.empty else f"{p.name}=_{p.name}"
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD
    )
    only = ", ".join(
        p.name if p.default is p.empty else f"{p.name}=_{p.name}" for p in parameters if p.kind is p.KEYWORD_ONLY
    )
    declared = ", ".join(part for part in (head, f"*, {only}" if only else "") if part)
    arguments = ", ".join(f"{p.name!r}: {p.name}" for p in parameters)
    scope = {**defaults, "escape": escape, "plain": plain}

    def compiled(result: str) -> Callable[..., Any]:
        return cast("Callable[..., Any]", eval(f"lambda {declared}: {result}", scope))  # noqa: S307 - text made of a signature and templates, all of them the programmer's

    known = "".join(f"{tag.source()}, " for tag in tags)
    return (
        compiled(f"{{{arguments}}}"),
        compiled(template.source()),
        compiled(f"({known})"),
        compiled(template.scopes_source(tags)),
    )
