"""The Django backend, its sessions and its signals, in one process with a database of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import django
import pytest
from django.conf import settings

settings.configure(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "cachebus.integrations.django"],
    SECRET_KEY="of tests",  # noqa: S106 - signs nothing that counts
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import SESSION_KEY  # noqa: E402
from django.contrib.sessions.backends.base import UpdateError  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.test import override_settings  # noqa: E402

from cachebus import ConfigurationError, sync  # noqa: E402
from cachebus.cache.hooks import Observer  # noqa: E402
from cachebus.errors import NotCacheable  # noqa: E402
from cachebus.integrations.django import invalidate_on_commit, invalidate_on_save  # noqa: E402
from cachebus.integrations.django.sessions import SessionStore  # noqa: E402
from cachebus.testing.server import PrivateServer  # noqa: E402
from tests.support.worker_program import until  # noqa: E402


class Trade(models.Model):
    """Whose sum is cached."""

    user_id = models.IntegerField()
    price = models.IntegerField(default=1)

    class Meta:
        app_label = "cachebus"


invalidate_on_save(Trade, tags=["user:{user_id}:trades"])


@pytest.fixture
def here(server: PrivateServer, namespace: str) -> Iterator[Any]:
    """The project's cache; `caches["there"]` is another process' of the same deployment."""
    place = {"BACKEND": "cachebus.integrations.django.Cache", "LOCATION": server.url}
    both = {
        "default": {**place, "OPTIONS": {"namespace": namespace}},
        "there": {**place, "OPTIONS": {"namespace": namespace, "report": False}},
        "foreign": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    with override_settings(CACHES=both), ExitStack() as stack:
        for alias in ("default", "there"):
            stack.callback(caches[alias].facade.close)
        yield caches["default"]


@pytest.fixture
def trades() -> Iterator[None]:
    """A table, empty."""
    with connection.schema_editor() as editor:
        editor.create_model(Trade)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Trade)


def test_one_process_hears_of_what_another_does(here: Any) -> None:
    """A value set in one is read in the other; deleted, cleared or invalidated by a tag, it is read in none."""
    there = caches["there"]
    ends: list[Callable[[], object]] = [
        lambda: here.delete("k"),
        here.clear,
        lambda: here.invalidate(tags=["user:7"]),
        lambda: here.set("k", "new", 0),
    ]
    for end in ends:
        here.set("k", {"total": 1}, 60, tags=["user:7"])
        until(lambda: there.get("k") == {"total": 1}, "the value in the other process")
        end()
        assert here.get("k") is None
        until(lambda: there.get("k") is None, "the end in the other process")


def test_a_value_read_before_an_invalidation_is_not_stored_after_it(here: Any) -> None:
    """What every Django project writes by hand: get, read the database, set. Somebody deletes in between."""
    assert here.get("k") is None
    caches["there"].delete("k")
    here.set("k", "of the old row")
    assert here.get("k") is None


def test_add_and_incr_are_one_step_for_everybody(here: Any) -> None:
    """Of 8 threads one adds; 40 increments of two processes count 40, and the counter ends when it was to."""
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: caches["there" if n % 2 else "default"].add("lock", n, 60), range(8))) == 1
        here.set("hits", 0, 60)
        counted = list(pool.map(lambda n: caches["there" if n % 2 else "default"].incr("hits"), range(40)))
    assert sorted(counted) == list(range(1, 41))
    until(lambda: here.get("hits") == 40, "the sum")
    here.set("half", 1.5)
    assert (here.incr("half"), here.get("half")) == (2.5, 2.5)
    here.set("short", 1, 1)
    here.incr("short")
    until(lambda: here.get("short") is None, "its end: incr leaves it")


def test_asynchronous_methods_do_not_block_the_loop(here: Any) -> None:
    """They are native: the loop goes on; the synchronous ones refuse there."""

    async def view() -> None:
        await here.aset("a", 1)
        assert await here.aget_many(["a", "b"]) == {"a": 1}
        assert await here.aincr("a") == 2
        assert (await here.aadd("a", 5), await here.atouch("a"), await here.adelete("a")) == (False, True, True)
        with pytest.raises(RuntimeError, match="would block the running event loop"):
            here.get("a")

    asyncio.run(view())


def test_what_needs_pickle_says_what_to_do(here: Any, trades: None) -> None:
    """A model instance is refused with its key and the way out; a rendered template stays safe."""
    from django.utils.safestring import mark_safe  # noqa: PLC0415

    with pytest.raises(NotCacheable, match=r":1:trade: .*the value cannot be stored: .*\.values\(\)"):
        here.set("trade", Trade(user_id=1))
    here.set("fragment", mark_safe("<b>"))
    assert type(here.get("fragment")) is type(mark_safe("<b>"))


class Invalidations(Observer):
    """Counts them."""

    count = 0

    def invalidating(self) -> None:
        self.count += 1


def rolled_back() -> None:
    """Save in a transaction, or in a savepoint of the one that is open, which is rolled back."""
    with suppress(ZeroDivisionError), transaction.atomic():
        Trade.objects.create(user_id=1)
        raise ZeroDivisionError


def test_a_saved_model_invalidates_when_it_is_committed(here: Any, trades: None) -> None:
    """Not before, not if rolled back; in one round trip for a hundred; for the owner of before as well."""

    @here.view("total:{user_id}", ttl="5m", tags=["user:{user_id}:trades"])
    def total(user_id: int) -> int:
        return sum(Trade.objects.filter(user_id=user_id).values_list("price", flat=True))

    assert (total(1), total(2)) == (0, 0)
    seen = Invalidations()
    with here.facade.observed_by(seen):
        with transaction.atomic():
            for _ in range(100):
                Trade.objects.create(user_id=1)
            assert (seen.count, total(1)) == (0, 0)
        assert (seen.count, total(1)) == (1, 100)
        rolled_back()
        assert seen.count == 1
        with transaction.atomic():
            rolled_back()
            Trade.objects.create(user_id=1)
        assert (seen.count, total(1)) == (2, 101)
        moved = Trade.objects.filter(user_id=1).first()
        moved.user_id = 2
        moved.save()
        assert (total(1), total(2)) == (100, 1)
        moved.delete()
        assert total(2) == 0
        with transaction.atomic():
            Trade.objects.filter(user_id=1).update(price=2)
            invalidate_on_commit(tags="user:1:trades")
        assert total(1) == 200


def test_what_a_transaction_loads_is_not_stored(here: Any, trades: None) -> None:
    """Nobody is served what is not committed, during the transaction or after it was rolled back; a hit is a hit."""

    def total(user: int) -> int:
        return Trade.objects.filter(user_id=user).count()

    view = here.view("total:{user}", ttl="5m", tags=["user:{user}:trades"])(total)
    there = caches["there"].view("total:{user}", ttl="5m", tags=["user:{user}:trades"])(lambda user: -user)
    assert view(1) == 0
    with suppress(ZeroDivisionError), transaction.atomic():
        Trade.objects.create(user_id=7)
        assert view(7) == 1, "the caller has what it wrote"
        assert view.refresh(7) == 1
        assert view.warm(7).loaded is False
        assert here.facade.get_or_load("sum", lambda: total(7)) == 1
        assert here.facade.get_or_load_many(["all"], lambda keys: {"all": total(7)}) == {"all": 1}
        assert view(1) == 0
        assert view.view.stats.l1_hits == 1, "what was there is served"
        raise ZeroDivisionError
    assert (view(7), here.facade.get("sum"), here.facade.get("all")) == (0, None, None)
    with transaction.atomic():
        assert view(8) == 0
    assert there(8) == -8


def test_a_commit_stands_when_the_invalidation_fails(
    here: Any, trades: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log; the request that saved goes on."""
    monkeypatch.setattr(here.facade, "invalidate", lambda **_: 1 / 0)
    with caplog.at_level(logging.ERROR):
        Trade.objects.create(user_id=1)
    assert "after COMMIT, an invalidation failed: ZeroDivisionError" in caplog.text
    assert Trade.objects.count() == 1


def test_a_visitor_s_session_becomes_the_user_s(here: Any) -> None:
    """Nothing is stored for a visitor without data; after the login the id is new, and all of a user's end together."""
    visitor = SessionStore()
    assert visitor.session_key is None
    visitor["basket"] = ["tea"]
    visitor.save()
    before = visitor.session_key
    logged_in = SessionStore(before)
    assert logged_in["basket"] == ["tea"]
    logged_in.cycle_key()  # what django.contrib.auth.login does
    logged_in[SESSION_KEY] = "7"
    logged_in.save()
    assert logged_in.session_key != before
    assert SessionStore(before).load() == {}
    assert dict(SessionStore(logged_in.session_key).items()) == {"basket": ["tea"], SESSION_KEY: "7"}
    sessions = sync.SessionStore(here.facade)
    assert [session.user_id for session in sessions.list_user(7)] == ["7"]
    assert sessions.invalidate_user(7) == 1
    with pytest.raises(UpdateError):
        logged_in.save()


def test_a_session_lives_as_long_as_it_was_last_told(here: Any) -> None:
    """`set_expiry` holds from the next save, shorter and longer."""
    session = SessionStore()
    session["a"] = 1
    session.save()
    session.set_expiry(1)
    session.save()
    session.set_expiry(3600)
    session.save()
    (found,) = [sync.SessionStore(here.facade).get(session.session_key)]
    assert found is not None
    assert 3590 < (found.expires_at - found.last_seen_at).total_seconds() <= 3600


def test_a_session_that_another_program_began_is_nobody_s(here: Any) -> None:
    """A FastAPI service beside Django keeps its own in the same store: a cookie of it begins anew here."""
    theirs = sync.SessionStore(here.facade)
    key = theirs.create(7, {"basket": ["tea"]})
    visitor = SessionStore(key)
    assert (visitor.get("basket"), visitor.session_key) == (None, None)
    visitor["basket"] = []
    visitor.save()
    assert visitor.session_key != key
    assert theirs.get(key) is not None


def over_another_backend() -> None:
    """Begin a session where `SESSION_CACHE_ALIAS` names a cache that is not ours."""
    with override_settings(SESSION_CACHE_ALIAS="foreign"):
        SessionStore()


def test_a_cookie_of_another_engine_is_nobody_s(here: Any) -> None:
    """After a change of SESSION_ENGINE visitors begin anew; no error, no session under the old id."""
    old = SessionStore("abcdefghijklmnopqrstuvwxyz012345")
    assert (old.get("basket"), old.session_key) == (None, None)
    old["basket"] = []
    old.save()
    assert old.session_key != "abcdefghijklmnopqrstuvwxyz012345"


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (
            lambda: invalidate_on_save(Trade, tags=["user:{usr_id}"]),
            r"invalidate_on_save\(Trade\): \{usr_id\} .* user_id",
        ),
        (lambda: invalidate_on_save(Trade, tags=[]), "name a tag, such as 'user:{user_id}'"),
        (invalidate_on_commit, "name keys or tags"),
        (
            lambda: invalidate_on_commit(tags=["a"], alias="foreign"),
            r"'foreign'\] is .*DummyCache; its BACKEND",
        ),
        (over_another_backend, r"^CACHES\['foreign'\] is .*DummyCache; its BACKEND must be [\w.]+$"),
        (lambda: invalidate_on_commit(tags=[""]), "must be text without control characters"),
    ],
)
def test_a_mistake_is_named_where_it_is_made(here: Any, mistake: Callable[[], object], said: str) -> None:
    """The field that is not there, the cache that is another's: one line each."""
    with pytest.raises((ConfigurationError, ImproperlyConfigured), match=said):
        mistake()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"MAX_ENTRIES": 5}, "OPTIONS MAX_ENTRIES: use max_memory_entries instead"),
        ({"namespcae": "x"}, "OPTIONS namespcae: not known here; there are url"),
        ({"url": "redis://elsewhere"}, "OPTIONS url: LOCATION says it"),
        ({"max_memory_entries": "5"}, "OPTIONS max_memory_entries: '5': Expected `int`, got `str`"),
        ({"never": 5}, "OPTIONS never: 5: Expected"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    """A misspelt option, one of another backend or of the wrong type: named, with what it should be."""
    place = {"BACKEND": "cachebus.integrations.django.Cache", "OPTIONS": options}
    with override_settings(CACHES={"default": place}), pytest.raises(ImproperlyConfigured, match=said):
        caches["default"].get("a")


def test_several_locations_are_refused() -> None:
    """Other backends take a list of servers; here it is one URL."""
    place = {"BACKEND": "cachebus.integrations.django.Cache", "LOCATION": ["redis://a", "redis://b"]}
    with override_settings(CACHES={"default": place}), pytest.raises(ImproperlyConfigured, match="must be one URL"):
        caches["default"].get("a")
