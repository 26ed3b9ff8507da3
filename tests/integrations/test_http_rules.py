"""RFC 9110, 9111 and 9211 as rules: preconditions, what a 304 carries, what may be kept, bodies of every kind. Pure."""

from __future__ import annotations

import enum
import uuid
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cachebus import Cache
from cachebus.errors import ConfigurationError, NotCacheable
from cachebus.integrations.http.body import Body, body_of_type, json_body
from cachebus.integrations.http.caching import LONGEST_CONDITION, Responder, asked, is_match
from cachebus.integrations.http.renderings import Rendering

BODY = json_body({"value": 1})
TAG = BODY.tag
OPAQUE = TAG.removeprefix(b"W/")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (TAG, True),
        (OPAQUE, True),  # weak comparison: 8.8.3.2
        (b'"other"', False),
        (b"*", True),
        (b"  *  ", True),
        (b'"other", ' + TAG, True),
        (b'"other",' + OPAQUE + b',W/"third"', True),
        (b'"a,b", ' + TAG, True),  # a comma inside a tag
        (b'"a,' + OPAQUE.strip(b'"') + b',b"', False),
        (b"\t" + TAG + b" ,, ", True),  # empty elements: 5.6.1
        (OPAQUE.strip(b'"'), False),  # no quotes, no tag
        (b"W/", False),
        (b"", False),
        (b'"' * 7, False),
        (b"\xff\x00\xfe", False),
        (TAG[:-2] + b'"', False),
    ],
)
def test_a_condition_matches_the_tag_it_names_and_no_other(field: bytes, *, expected: bool) -> None:
    """If-None-Match: lists, weak tags, '*', commas within tags, and what is no list at all."""
    assert is_match(field, TAG) is expected


@given(st.binary(max_size=300))
def test_no_bytes_are_too_odd_for_a_condition(field: bytes) -> None:
    """Whatever a client sends is a yes or a no, and a yes names the tag or is '*'."""
    if is_match(field, TAG):
        assert field.strip() == b"*" or OPAQUE in field


def test_a_huge_condition_is_answered_in_full() -> None:
    """A header of megabytes costs a look at its length; the answer is a plain 200."""
    assert not is_match(b'"x", ' * LONGEST_CONDITION + TAG, TAG)
    assert is_match(b'"x", ' * 100 + TAG, TAG)


def test_fields_that_come_twice_are_one_list() -> None:
    """Two lines of If-None-Match are a list; two clocks are no clock, which only makes the read ask."""
    found = asked([(b"if-none-match", b'"a"'), (b"x", b"y"), (b"if-none-match", TAG), (b"fresh-after", b"\xff")])
    assert found.if_none_match is not None
    assert is_match(found.if_none_match, TAG)
    assert found.fresh_after == "\xff"


def headers_of(
    responder: Responder, method: str = "GET", condition: bytes | None = None
) -> tuple[int, dict[bytes, bytes]]:
    status, headers, body = responder.answer(method, condition, Rendering(BODY, age_s=7.9, left_s=52.1, detail="redis"))
    assert len({name for name, _ in headers}) == len(headers)
    assert (body == BODY.data) == (status == 200 and method != "HEAD")
    return status, dict(headers)


def test_a_304_carries_what_the_200_would_of_caching_and_nothing_of_the_body() -> None:
    """15.4.5: ETag, Cache-Control, Vary; no Content-Type, no Content-Length."""
    responder = Responder(max_age="1m", vary="Accept-Language")
    full, unchanged = headers_of(responder), headers_of(responder, condition=TAG)
    assert (full[0], unchanged[0]) == (200, 304)
    assert full[1] == {**unchanged[1], b"content-type": b"application/json", b"content-length": b"%d" % len(BODY)}
    assert unchanged[1] == {
        b"etag": TAG,
        b"cache-control": b"private, max-age=60",
        b"vary": b"Accept-Language, Cookie, Authorization",
        b"age": b"7",
        b"cache-status": b"cachebus; hit; ttl=52; detail=redis",
    }


def test_head_is_get_without_the_body() -> None:
    """9.3.2: the same headers, Content-Length included, and conditions hold."""
    assert headers_of(Responder(), "HEAD") == headers_of(Responder())
    assert headers_of(Responder(), "HEAD", b"*")[0] == 304


def test_what_another_method_is_answered_is_neither_kept_nor_conditional() -> None:
    """A POST that answers with the new state says no-store, and carries no tag that a GET might send back."""
    status, headers = headers_of(Responder(max_age="1m"), "POST", b"*")
    assert status == 200
    assert headers[b"cache-control"] == b"no-store"
    assert b"etag" not in headers


@pytest.mark.parametrize(
    ("options", "control"),
    [
        ({}, b"private, no-cache"),
        ({"max_age": "5m"}, b"private, max-age=300"),
        ({"max_age": 5, "stale_while_revalidate": "1h"}, b"private, max-age=5, stale-while-revalidate=3600"),
        ({"max_age": "1s", "public": True}, b"public, max-age=1"),
    ],
)
def test_nothing_is_kept_without_a_question_unless_the_route_says_so(
    options: dict[str, object], control: bytes
) -> None:
    """The default asks each time; what is kept for a time by one browser is not shown to the next who signs in."""
    headers = headers_of(Responder(**options))[1]  # type: ignore[arg-type] # the options of the table
    assert headers[b"cache-control"] == control
    assert headers.get(b"vary") == (
        b"Cookie, Authorization" if "max_age" in options and "public" not in options else None
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_age": "soon"}, r"max_age: 'soon' is not a duration"),
        ({"max_age": "200ms"}, r"max_age: '200ms' is below a second"),
        ({"public": True}, r"public: proxies keep nothing without max_age"),
        ({"stale_while_revalidate": "1m"}, r"stale_while_revalidate: nothing is kept without max_age"),
        ({"vary": "Accept\r\nSet-Cookie: a"}, r"vary: .* is not the name of a header"),
    ],
)
def test_a_mistake_in_the_options_is_named(options: dict[str, object], message: str) -> None:
    """Where the route is declared, by the option's name."""
    with pytest.raises(ConfigurationError, match=message):
        Responder(**options)  # type: ignore[arg-type] # mistakes


def test_a_users_answer_is_never_public() -> None:
    """A view per user, and a route that has proxies keep it: refused where it is declared."""
    cache = Cache.memory()

    @cache.view("mine:{user_id}", ttl="1m")
    async def mine(user_id: int) -> int:
        return user_id

    @cache.view("file:{name}", ttl="1m")
    async def file(name: str) -> bytes:
        return name.encode()

    with pytest.raises(ConfigurationError, match=r"mine:\{user_id\}.*per user_id: public"):
        Responder(max_age="1m", public=True).check(mine)
    with pytest.raises(ConfigurationError, match=r"returns bytes: say which, such as media_type='text/csv'"):
        Responder().check(file)
    with pytest.raises(ConfigurationError, match=r"is no view; cached_response stands directly above @cache.view"):
        Responder().check(len)  # type: ignore[arg-type] # a mistake


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct, frozen=True):
    x: int
    colour: Colour


class Table(DeclarativeBase):
    pass


class User(Table):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


def test_a_body_is_json_of_what_views_return() -> None:
    """Structs, enums, decimals, UUIDs, sets, bytes, None, text beyond ASCII."""
    value = [Point(1, Colour.RED), Decimal("1.10"), uuid.UUID(int=0), {3}, b"ab", None, "é", float("nan")]
    assert json_body(value).data.decode() == (
        '[{"x":1,"colour":"red"},"1.10","00000000-0000-0000-0000-000000000000",[3],"YWI=",null,"é",null]'
    )


def test_rows_of_a_query_are_objects_of_their_columns() -> None:
    """As views store them: Row and RowMapping; a mapped object is refused with the way out."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT 1 AS id, 'AAPL' AS symbol")).all()
        mappings = connection.execute(text("SELECT 1 AS id, 'AAPL' AS symbol")).mappings().all()
    engine.dispose()
    assert json_body(rows).data == json_body(mappings).data == b'[{"id":1,"symbol":"AAPL"}]'
    with pytest.raises(NotCacheable, match=r"cannot be written as JSON: it holds a User: User is mapped to a table"):
        json_body([User(id=1)])


def test_what_json_cannot_hold_is_one_clear_error() -> None:
    """The class is named; nothing half-written is sent."""
    with pytest.raises(NotCacheable, match=r"cannot be written as JSON: it holds a object"):
        json_body({"a": object()})
    with pytest.raises(NotCacheable, match=r"is a int: a view with media_type='text/csv' returns bytes or text"):
        body_of_type("text/csv")(7)


def test_a_body_that_is_no_json_is_sent_as_it_is() -> None:
    """Text is UTF-8 and says so; bytes are untouched; equal bodies have equal tags in every process."""
    assert body_of_type("text/csv")("a;é").described[0] == (b"content-type", b"text/csv; charset=utf-8")
    image = body_of_type("image/png")(b"\x89PNG\x00")
    assert (image.data, image.described[0][1]) == (b"\x89PNG\x00", b"image/png")
    assert Body(b"", "a/b").tag == b'W/"yuZpQdnvvUBOTYh1jqZ2cA"'
