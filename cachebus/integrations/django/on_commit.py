"""Invalidating when Django's transaction commits: not before, and not if it is rolled back.

What one transaction (or savepoint) names is invalidated together, each once, in one round trip after COMMIT. Outside of
a transaction it is done at once. A rolled-back savepoint takes its own with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_init, post_save

from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import names, scopes_to_invalidate
from cachebus.integrations.django.facade import DjangoCache, cache_of
from cachebus.templates import Template, plain

log = logging.getLogger("cachebus")

_WAS = "_cachebus_tags"
"""Where an instance keeps the tags it had when it was read: who changes an owner changes what both see."""


def invalidate_on_commit(
    *, tags: str | Iterable[str] = (), keys: str | Iterable[str] = (), using: str | None = None, alias: str = "default"
) -> None:
    """Invalidate these when the open transaction of the database *using* commits. alias: which of `CACHES`.

    For what sends no signal (`QuerySet.update`, `bulk_create`, SQL), in the block that does it. The commit stands
    whatever becomes of it: what fails is an error in the log. Raises: ConfigurationError for a bad name.
    """
    scopes = _Scopes(cache_of(alias), _savepoints(using))
    if not scopes_to_invalidate(keys=(keys := names(keys)), tags=(tags := names(tags))):
        raise ConfigurationError("invalidate_on_commit: name keys or tags")
    for waiting in reversed(connections[using or DEFAULT_DB_ALIAS].run_on_commit):
        if waiting[1] == scopes:
            waiting[1].add(keys, tags)
            return
    scopes.add(keys, tags)
    transaction.on_commit(scopes, using=using)


def invalidate_on_save(model: type[Model], *, tags: str | Iterable[str], alias: str = "default") -> None:
    """Invalidate *tags*, `{field}` for each field, whenever an instance of *model* is saved or deleted.

        invalidate_on_save(Order, tags=["user:{user_id}:orders", "orders"])

    In `models.py` below the model, or in `AppConfig.ready`. An instance that was read and changes a named field
    invalidates the tags of before, too. Raises: ConfigurationError for a field that the model does not have.
    """
    _Saved(model, names(tags), alias).listen()


class _Scopes:
    """What waits for one transaction or savepoint, to be invalidated in one cache. Called after COMMIT."""

    def __init__(self, cache: DjangoCache, savepoints: tuple[str, ...]) -> None:
        self._place = (cache, savepoints)
        self._cache = cache
        self._keys: dict[str, None] = {}
        self._tags: dict[str, None] = {}

    def add(self, keys: Iterable[str], tags: Iterable[str]) -> None:
        self._keys.update(dict.fromkeys(keys))
        self._tags.update(dict.fromkeys(tags))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Scopes) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __call__(self) -> None:
        try:
            self._cache.invalidate(keys=list(self._keys), tags=list(self._tags))
        except Exception as failed:  # noqa: BLE001 - the commit stands; raising would say that it does not
            log.error("after COMMIT, an invalidation failed: %s: %s", type(failed).__name__, failed)  # noqa: TRY400 - one line


def _savepoints(using: str | None) -> tuple[str, ...]:
    return tuple(connections[using or DEFAULT_DB_ALIAS].savepoint_ids)


class _Saved:
    """Listens to the signals of one model."""

    def __init__(self, model: type[Model], tags: Sequence[str], alias: str) -> None:
        if not tags:
            raise ConfigurationError(f"invalidate_on_save({model.__name__}): name a tag, such as 'user:{{user_id}}'")
        fields = {field.attname: field for field in model._meta.concrete_fields}  # noqa: SLF001 - Django's public word for it
        what = f"invalidate_on_save({model.__name__})"
        self._model = model
        self._alias = alias
        self._tags = [Template(tag, [*fields, "pk"], what=what, word=plain) for tag in tags]
        asked = frozenset[str]().union(*(tag.fields for tag in self._tags))
        self._named = [name if name != "pk" else model._meta.pk.attname for name in asked]  # noqa: SLF001 - likewise

    def listen(self) -> None:
        """From now on, for as long as the process lives."""
        mark = f"cachebus {id(self)}"
        receivers: list[tuple[Any, Callable[..., None]]] = [
            (post_init, self._read),
            (post_save, self._changed),
            (post_delete, self._changed),
        ]
        for signal, receiver in receivers:
            signal.connect(receiver, sender=self._model, weak=False, dispatch_uid=mark)

    def _of(self, instance: Model) -> tuple[str, ...]:
        return tuple(tag.format({name: getattr(instance, name) for name in tag.fields}) for tag in self._tags)

    def _read(self, instance: Model, **_: Any) -> None:
        if all(name in instance.__dict__ for name in self._named):  # what was deferred is not fetched for this
            instance.__dict__.setdefault(_WAS, {})[self] = self._of(instance)

    def _changed(self, instance: Model, using: str, **_: Any) -> None:
        were = instance.__dict__.setdefault(_WAS, {})
        tags = self._of(instance)
        invalidate_on_commit(tags=dict.fromkeys((*were.get(self, ()), *tags)), using=using, alias=self._alias)
        were[self] = tags
