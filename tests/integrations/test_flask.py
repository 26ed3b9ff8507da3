"""The Flask extension: pages and results in an application as Flask programmers write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import pytest
from flask import Flask, Response, abort, request, session
from flask.typing import ResponseReturnValue

from cachebus import ConfigurationError
from cachebus.errors import CannotStart
from cachebus.integrations.flask import FlaskCache
from cachebus.testing.server import PrivateServer

made: Counter[str] = Counter()
"""How often each page was made."""
browsers = count(1)


def of_one_browser() -> Response:
    """Return a page that sets a cookie."""
    response = Response("yours")
    response.set_cookie("sid", str(next(browsers)))
    return response


KINDS: dict[str, Callable[[], ResponseReturnValue]] = {
    "cookie": of_one_browser,
    "session": lambda: f"hello {session.get('name')}",
    "gone": lambda: abort(404),
    "stream": lambda: Response(iter(["a", "b"])),
    "private": lambda: ("x", {"Cache-Control": "private"}),
    "authorization": lambda: f"hello {request.authorization}",
    "header": lambda: "hello" if "Authorization" in request.headers else "who?",
    "cookies": lambda: f"hello {request.cookies.get('who')}",
    "every header": lambda: str(dict(request.headers)),
    "language": lambda: (str(request.accept_languages), {"Vary": "Accept-Language"}),
}
"""Pages that are for one request alone."""


def application(url: str, namespace: str) -> tuple[Flask, FlaskCache]:
    """One process of a deployment."""
    app, cache = Flask(__name__), FlaskCache()
    app.before_request(lambda: session.get("who") and None)  # as a login extension does, for each request
    app.secret_key = "of tests"  # noqa: S105 - signs nothing that counts
    app.config.update(REDIS_URL=url, CACHE_NAMESPACE=namespace, CACHE_DEFAULT_TTL="60s")

    @app.get("/users/<int:user_id>")
    @cache.cached(60, tags=lambda user_id: [f"user:{user_id}"])
    def user(user_id: int) -> ResponseReturnValue:
        made["user"] += 1
        return {"user": user_id}, {"X-Made": str(made["user"])}

    @app.get("/search")
    @cache.cached(60, query_string=True)
    def search() -> str:
        made["search"] += 1
        return request.query_string.decode()

    @app.route("/kinds/<kind>", methods=["GET", "POST"])
    @cache.cached(60, unless=lambda: "preview" in request.args)
    def kinds(kind: str) -> ResponseReturnValue:
        made[kind] += 1
        return KINDS.get(kind, lambda: kind)()

    @app.get("/mine")
    @cache.cached(60, key=lambda: f"mine:{request.cookies.get('who')}:{request.headers.get('Authorization')}")
    def mine() -> str:
        made["mine"] += 1
        return f"{request.cookies.get('who')} {request.authorization}"

    @cache.memoize(60)
    def total(user_id: int, year: int = 2026) -> int:
        made[f"total {user_id} {year}"] += 1
        return user_id + year

    @app.get("/total/<int:user_id>")
    def show_total(user_id: int) -> str:
        return str(total(user_id))

    cache.init_app(app)
    app.extensions["total"] = total
    return app, cache


@pytest.fixture
def apps(server: PrivateServer, namespace: str) -> Iterator[list[tuple[Flask, FlaskCache]]]:
    """Two processes of one deployment."""
    made.clear()
    both = [application(server.url, namespace) for _ in range(2)]
    yield both
    for _, cache in both:
        cache.close()


def test_a_page_is_made_once_until_its_tag_is_invalidated(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """In both processes: status, headers and body as they were made; HEAD and GET are one page."""
    (app, cache), (other, _) = apps
    first = app.test_client().get("/users/7")
    again = other.test_client().get("/users/7")
    assert (again.json, again.headers["X-Made"], again.content_type) == ({"user": 7}, "1", first.content_type)
    assert app.test_client().head("/users/7").headers["Content-Length"] == first.headers["Content-Length"]
    assert made["user"] == 1
    clock = cache.invalidate(tags=["user:7"])
    assert app.test_client().get("/users/7").headers["X-Made"] == "2"
    with apps[1][1].reading(fresh_after=clock):
        assert other.test_client().get("/users/7").headers["X-Made"] == "2"


def test_queries_are_pages_of_their_own(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """With `query_string`, whatever the order of the parameters; control characters in a path are no error."""
    client = apps[0][0].test_client()
    assert client.get("/search?a=1&b=2").text == client.get("/search?b=2&a=1").text
    assert client.get("/search?a=2").text == "a=2"
    assert made["search"] == 2
    assert [client.get(f"/kinds/{path}").text for path in ("a%0Ab", "a%250Ab")] == ["a\nb", "a%0Ab"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_for_one_request_is_not_kept(apps: list[tuple[Flask, FlaskCache]], kind: str) -> None:
    """Cookies, sessions, errors, streams, private pages: made for each request."""
    client = apps[0][0].test_client()
    for _ in range(3):
        client.get(f"/kinds/{kind}")
    assert made[kind] == 3


def test_a_page_for_one_user_is_not_shown_to_another(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """Who sends Authorization gets their own page, and leaves none; so it is where a decorator above looked at it."""
    client = apps[0][0].test_client()
    for user in ("Alice", "Bob"):
        assert user in client.get("/kinds/authorization", headers={"Authorization": f"Bearer {user}"}).text
        client.get("/kinds/plain", headers={"Authorization": f"Bearer {user}"})
    assert made["plain"] == 2
    client.set_cookie("who", "Alice")
    assert client.get("/kinds/cookies").text == "hello Alice"
    client.set_cookie("who", "Bob")
    assert client.get("/kinds/cookies").text == "hello Bob"


def test_a_key_that_reads_who_asks_keeps_a_page_for_each(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """The application has said so: what the key function looked at may shape the page."""
    client = apps[0][0].test_client()
    for user in ("Alice", "Bob", "Alice", "Bob"):
        client.set_cookie("who", user)
        assert client.get("/mine", headers={"Authorization": f"Bearer {user}"}).text == f"{user} Bearer {user}"
    assert made["mine"] == 2


def test_nobody_gets_a_cookie_of_another(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """Eight requests at once for a page that turns out to set one: each gets its own."""
    app, together = apps[0][0], Barrier(8)

    def ask(_: int) -> str:
        client = app.test_client()
        together.wait()
        return client.get("/kinds/cookie").headers["Set-Cookie"]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 8


def test_other_methods_and_unless_pass_by(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """A POST, and a request for which `unless` is true, are neither served nor kept."""
    client = apps[0][0].test_client()
    for _ in range(2):
        client.post("/kinds/plain")
        client.get("/kinds/plain?preview=1")
    assert made["plain"] == 4
    for _ in range(2):
        client.get("/kinds/plain")
    assert made["plain"] == 5


def test_results_are_memoized_by_their_arguments(apps: list[tuple[Flask, FlaskCache]]) -> None:
    """In both processes; one result or all of them can be dropped."""
    (app, cache), (other, _) = apps
    assert {app.test_client().get("/total/1").text, other.test_client().get("/total/1").text} == {"2027"}
    total = app.extensions["total"]
    assert (total(1), total(1, year=2025)) == (2027, 2026)
    assert made == {"total 1 2026": 1, "total 1 2025": 1}
    cache.delete_memoized(total, 1)
    assert (total(1), total(1, year=2025)) == (2027, 2026)
    assert made == {"total 1 2026": 2, "total 1 2025": 1}
    cache.delete_memoized(total)
    assert (total(1), total(1, year=2025)) == (2027, 2026)
    assert made == {"total 1 2026": 3, "total 1 2025": 2}


def test_settings_are_checked(server: PrivateServer, caplog: pytest.LogCaptureFixture) -> None:
    """Flask-Caching's names, bad values, a second application: said when the extension is initialised.

    A misspelt name is no error, as it is none in the environment: it is named in the log, with the near one.
    """
    old = Flask("old")
    old.config["CACHE_TYPE"] = "RedisCache"
    with pytest.raises(ConfigurationError, match="CACHE_TYPE: not settings of cachebus; write REDIS_URL"):
        FlaskCache(old)
    bad = Flask("bad")
    bad.config.update(REDIS_URL="http://x", CACHE_DEFAULT_TTL="soon")
    with pytest.raises(CannotStart, match=r"(?s)REDIS_URL.*CACHE_DEFAULT_TTL"):
        FlaskCache(bad)
    good = Flask("good")
    good.config.update(REDIS_URL=server.url, CACHE_DEFUALT_TTL="1m", CACHED_PAGES=3)
    cache = FlaskCache(good)
    assert [record.getMessage() for record in caplog.records] == [
        "app.config: CACHE_DEFUALT_TTL: is not a setting; did you mean CACHE_DEFAULT_TTL?"
    ]
    with pytest.raises(ConfigurationError, match="configure it before it is used, once"):
        cache.init_app(Flask("second"))
