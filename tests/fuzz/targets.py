"""What decodes something from outside, and what must hold of it whatever that is."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from cachebus.bus.events import InvalidEvent
from cachebus.bus.feed import FeedRecord, page_after
from cachebus.bus.handlers import on
from cachebus.bus.letters import DelayedItem, RetryItem
from cachebus.bus.signatures import Signatures
from cachebus.cache.foresight.recording import (
    Chunk,
    Recording,
    Wanted,
    decode_chunk,
    encode_chunk,
    from_file,
    to_file,
)
from cachebus.cache.tiers.entry import LARGEST_BYTES, Header, stub, unpack
from cachebus.errors import ConfigurationError
from cachebus.freshness.clock import Born, parse_clock, parse_score
from cachebus.gateway.protocol import Hello, Malformed, Position, Subscribe, Unsubscribe, message_of, read_frame
from cachebus.integrations.asgi.address import client_address, network_of
from cachebus.integrations.asgi.sessions import _cookie_value
from cachebus.integrations.http.caching import asked, is_match
from cachebus.pubsub.pubsub import Message
from cachebus.sessions.session import address_of, decode_session, new_id, place_of
from tests.bus.test_fuzz import GOOD, Trade
from tests.unit.test_fuzz import serves, whole

KEY = "whsec_" + "c2VjcmV0" * 6
SIGNATURES = Signatures([KEY], {"orders": "require"})
STAMP_S = 1_700_000_000
POSITION = b"%d-0" % (STAMP_S * 1000)
WAYS = ("set", "cut", "add", "twice")
LOOSE = random.Random(1)  # noqa: S311 - real ones to damage, not secrets


def damaged(*real: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes that were real once, with parts changed, cut out, doubled or added; or any bytes."""
    cut = st.tuples(st.sampled_from(WAYS), st.integers(0, 1 << 16), st.binary(max_size=6))
    return st.binary(max_size=60) | st.builds(_damage, st.sampled_from(real), st.lists(cut, max_size=4))


def _damage(data: bytes, cuts: Sequence[tuple[str, int, bytes]]) -> bytes:
    for how, where, piece in cuts:
        at = where % (len(data) + 1)
        if how == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        elif how == "cut":
            data = data[:at] + data[at + 1 + len(piece) * 7 :]
        elif how == "add":
            data = data[:at] + piece + data[at:]
        else:
            data = data[:at] + data[at : at + 40] * (1 + len(piece)) + data[at:]
    return data


def again(value: Any, choose: random.Random) -> Any:
    """Return *value* damaged once more, in whatever form it has."""
    if isinstance(value, bytes):
        cuts = [
            (
                choose.choice(("set", "cut", "add", "twice")),
                choose.randrange(1 << 16),
                choose.randbytes(choose.randrange(5)),
            )
            for _ in range(choose.randint(1, 3))
        ]
        return _damage(value, cuts)
    if isinstance(value, str):
        return again(value.encode(), choose).decode("utf-8", "replace")
    at = choose.randrange(len(value))
    return (*value[:at], again(value[at], choose), *value[at + 1 :])


def text(*real: str) -> st.SearchStrategy[str]:
    """Return text that was real once, or any text."""
    return damaged(*(each.encode() for each in real)).map(lambda data: data.decode("utf-8", "replace"))


@on("trades", Trade)
def _trade(event: Trade) -> None:
    """Nothing: its decoder is what is looked at."""


def entry(data: bytes) -> None:
    """An entry is read as a whole one or as none; its value is of its type."""
    known = stub(data)
    assert known is None or isinstance(known.header, Header)
    found = unpack(data)
    if found is not None:
        assert len(found.payload) <= LARGEST_BYTES
        serves(found)


def event(data: bytes) -> None:
    """A payload is an event of the handler's type, or invalid."""
    try:
        found = _trade.decode(data)
    except InvalidEvent:
        return
    assert isinstance(found, Trade)
    assert isinstance(found.user_id, int)
    assert found.action in ("new_trade", "trade_deleted")


def item(data: bytes) -> None:
    """What waits in a retry or a delay is an item; what is none names no handler."""
    found = RetryItem.unpack(data)
    assert isinstance(found.payload, bytes)
    delayed = DelayedItem.unpack(data)
    assert delayed is None or isinstance(delayed.channel, str)


def frame(data: str) -> None:
    """A frame is one of three requests, or malformed with a reason."""
    try:
        found = read_frame(data)
    except Malformed:
        return
    assert isinstance(found, Hello | Subscribe | Unsubscribe)
    assert all(isinstance(topic, str) for topic in found.topics)


def position(data: str) -> None:
    """An id of the feed is a position, or none."""
    found = Position.of(data)
    assert found is None or 0 <= found.clock < 10**18


def record(data: bytes) -> None:
    """A record of the feed is passed on as it is, or is none of ours; a page is a page."""
    found = message_of(FeedRecord("1-2", "1-1", "a", data))
    assert found is None or found.text.startswith('{"v":1,')
    page = page_after([(b"2-0", [b"before", b"1-1", b"topic", data[:20], b"record", data])], [], "1-1")
    assert page.recovered in (True, False)


def clock(data: bytes) -> None:
    """A clock from outside is one, or none; a score is a finite number."""
    found = parse_clock(data.decode("latin-1"))
    assert found is None or isinstance(found, Born)
    assert 0 <= parse_score(data) <= 2**62


def cookie(data: bytes) -> None:
    """A cookie is one value or none, and an id leads to a place or nowhere."""
    value = _cookie_value([(b"cookie", data), (b"host", data)], "__Host-sid")
    assert value is None or ";" not in value
    for each in (value, data.decode("latin-1")):
        place = place_of(each)
        assert place is None or (len(place.address) == 22 and len(place.digest) == 43)


def session(data: bytes) -> None:
    """A record is a session, or no session."""
    try:
        found = decode_session("digest", data)
    except ValueError:
        return
    assert isinstance(found.user_id, int | str)


def signature(given: tuple[bytes, bytes, bytes, bytes]) -> None:
    """Nothing passes but what was signed, as it was signed; what does not, is said to be invalid."""
    signed, stamp, name, payload = given
    fields = {b"signature": signed, b"timestamp": stamp, b"id": name, b"channel": b"orders", b"payload": payload}
    try:
        SIGNATURES.check(fields, POSITION)
    except InvalidEvent:
        return
    _, at_s, _, right = SIGNATURES.sign("orders", name.decode(errors="replace"), payload, int(stamp))
    assert abs(int(at_s) - STAMP_S) <= 300
    assert str(right) in signed.decode(errors="replace").split()


def message(data: bytes) -> None:
    """A message of pub/sub is data, text or bytes."""
    Message("a", data).data  # noqa: B018 - it raises, or it does not


def recording(data: bytes) -> None:
    """A file is a recording and a part of it is a part, or each is refused by name."""
    for read in (from_file, decode_chunk):
        with contextlib.suppress(ConfigurationError):
            assert isinstance(read(data), Recording | Chunk)


def condition(data: bytes) -> None:
    """A condition is met by the tag it names, or by '*'."""
    tag = b'"a1b2"'
    if is_match(data, tag):
        assert tag in data or data.strip() == b"*"
    found = asked([(b"if-none-match", data), (b"fresh-after", data)])
    assert parse_clock(found.fresh_after) is None or found.if_none_match == data


def address(data: bytes) -> None:
    """A client has one address, in one form, whatever it says of itself."""
    scope = {"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", data)]}
    assert client_address(scope) == "10.0.0.1"
    assert network_of(client_address(scope, 1))


class Target(NamedTuple):
    """Something that decodes, and what it is given."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def _signed(payload: bytes) -> bytes:
    return str(SIGNATURES.sign("orders", "7", payload, STAMP_S)[3]).encode()


_RECORD = (
    b'{"id":"1-2","ts":1,"fresh_after":"5.4be1c0a92f7d3316","topic":"a","type":"t","data":{"n":[1,2]},'
    b'"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'
)
_SESSION = b'3 1700000000000000 1700000001000000 1800000000 1700043200000000\n7\n"10.0.0.1"\n"agent"\n"n"\t{"a":[1,2]}'
_WANTED = Wanted(id="a", secret="00" * 16, rate=0.5, from_us=1, until_us=2, asked_by="ops")
_ROWS = b"\1\0\0\0" * 12
_CHUNK = encode_chunk(
    Chunk(
        process="web-1",
        base_us=1,
        until_ms=2,
        entries_most=3,
        views=(),
        counted={},
        tags={"user:{n}": 2},
        lost=0,
        met=0,
        keys=(),
        **{field.name: _ROWS for field in msgspec.structs.fields(Chunk) if field.type is bytes},
    )
)
TARGETS = [
    Target("entry", damaged(*(whole(LOOSE) for _ in range(40))), entry),
    Target("event", damaged(GOOD, b'{"user_id":1e5,"action":"new_trade","at":17e8}'), event),
    Target(
        "item",
        damaged(
            msgspec.msgpack.encode(RetryItem("1-0", "h", "trades", GOOD, "id", "key")),
            msgspec.msgpack.encode(DelayedItem("trades", GOOD, "key")),
        ),
        item,
    ),
    Target(
        "frame",
        text('{"op":"hello","topics":["user:7"],"last":"1-2","ticket":"t"}', '{"op":"subscribe","topics":["a","b"]}'),
        frame,
    ),
    Target("position", text("1700000000000000-1700000000000042", "1-2"), position),
    Target("record", damaged(_RECORD), record),
    Target("clock", damaged(b"1700000000000041.4be1c0a92f7d3316", b"1e300", b"-inf", b"nan", b"17"), clock),
    Target("cookie", damaged(b"a=1; __Host-sid=" + new_id(address_of(7))[0].encode() + b"; b=2"), cookie),
    Target("session", damaged(_SESSION, _SESSION.replace(b" 1700", b" 170000000000", 1)), session),
    Target(
        "signature",
        st.tuples(
            damaged(_signed(GOOD), _signed(GOOD) + b" v1,AAAA"),
            st.just(b"%d" % STAMP_S) | damaged(b"%d" % STAMP_S, b"9" * 5000),
            st.just(b"7") | st.binary(max_size=4),
            st.just(GOOD) | damaged(GOOD),
        ),
        signature,
    ),
    Target("message", damaged(GOOD, b'"text"', b"text"), message),
    Target("recording", damaged(to_file(Recording(_WANTED, [_CHUNK])), _CHUNK), recording),
    Target("condition", damaged(b'"a1b2"', b'W/"x", "a1b2" , "y,z"', b"*"), condition),
    Target("address", damaged(b"1.2.3.4, 10.0.0.2", b"[2001:db8::1%eth0]:443", b"::ffff:1.2.3.4"), address),
]
