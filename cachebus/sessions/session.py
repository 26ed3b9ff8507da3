"""What a session is: its id, its fields, and how both are written. Pure.

An id is 48 random-looking bytes: 32 from the system's random source, which are the secret, and 16 that say where the
user's sessions are kept: a digest of the user id, masked with a digest of the secret, so that a piece of an id says
nothing. The store keeps the SHA-256 of the whole, never the id.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from cachebus.errors import ConfigurationError
from cachebus.errors import SessionConflict as SessionConflict  # noqa: PLC0414 - what a session raises is also found beside it
from cachebus.errors import TooManySessions as TooManySessions  # noqa: PLC0414 - as above
from cachebus.templates import NO_UTF8, has_surrogate

UserId = int | str

SECRET_BYTES = 32
ADDRESS_BYTES = 16
"""With the secret 48 bytes: 64 characters of base64 without padding, so that each id has one spelling."""
LARGEST_DATA_BYTES = 65_536
MOST_FIELDS = 200
"""Fields of one call; a script takes at most 1,000 arguments."""
PLACE_CHARACTERS = 256
"""Of an address and of a user agent; what is longer is cut."""
RESERVED = frozenset({"session_id", "user_id", "created_at", "last_seen_at", "expires_at", "ref", "version"})
"""What the store says about a session. Data may not say it: it would look like the store's word."""
KNOWN = (RESERVED - {"session_id"}) | {"ip", "user_agent"}
"""What `session[…]` answers beside the fields of the data."""

_ID = re.compile(r"[A-Za-z0-9_-]{64}")
_Content = tuple[UserId, str | None, str | None, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it was when it was read. It does not hold its id: `ref` names it in lists and logs, no more.

    `session["theme"]` is a field of its data, and `session["ip"]`, `session["user_id"]` and so on what the store knows,
    unless the data have a field of that name; `session.get("theme", "light")` and `"theme" in session` as of a dict.

    `expires_at` is when it ends if nobody uses it again: the idle or the absolute timeout, whichever comes first.
    `changed` names which of `ip` and `user_agent` differ from what was known: a sign, not a proof.
    """

    user_id: UserId
    data: dict[str, Any] = field(repr=False)
    ref: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str | None
    version: int
    changed: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Any:
        if name in self.data:
            return self.data[name]
        if name in KNOWN:
            return getattr(self, name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self.data or name in KNOWN

    def get(self, name: str, default: Any = None) -> Any:
        """Return `session[name]`, or *default* where there is no such field."""
        try:
            return self[name]
        except KeyError:
            return default


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session is kept, `address`, and under which name, `digest`: what an id says to who has it whole."""

    address: str
    digest: str


def address_of(user_id: UserId) -> str:
    """Return where the sessions of a user are kept. 7 and "7" are one user: ending all must miss none.

    Raises: ConfigurationError for what is no user id.
    """
    if type(user_id) not in {int, str} or user_id == "":
        raise ConfigurationError(f"user_id: {user_id!r} must be a number or a text")
    if isinstance(user_id, str) and has_surrogate(user_id):
        raise ConfigurationError(f"user_id: {user_id!r} {NO_UTF8}")
    return _text(hashlib.sha256(str(user_id).encode()).digest()[:ADDRESS_BYTES])


def new_id(address: str) -> tuple[str, str]:
    """Return a new id for a session kept at *address*, and its digest."""
    secret = secrets.token_bytes(SECRET_BYTES)
    raw = _masked(urlsafe_b64decode(address + "=="), secret) + secret
    return _text(raw), _digest(raw)


def place_of(session_id: object) -> Place | None:
    """Return where the session of an id is kept; None for what no store has made."""
    if not isinstance(session_id, str) or not _ID.fullmatch(session_id):
        return None
    raw = urlsafe_b64decode(session_id)
    return Place(_text(_masked(raw[:ADDRESS_BYTES], raw[ADDRESS_BYTES:])), _digest(raw))


def _masked(address: bytes, secret: bytes) -> bytes:
    mask = hashlib.sha256(b"address" + secret).digest()
    return bytes(a ^ b for a, b in zip(address, mask, strict=False))


def _digest(raw: bytes) -> str:
    return _text(hashlib.sha256(raw).digest())


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def encode_fields(data: Mapping[str, Any], remove: str | Iterable[str] = ()) -> list[bytes]:
    """Return pairs: a name, and its line of a record (name, tab, value; JSON has no tabs) or nothing where it goes.

    Raises: ConfigurationError for a reserved or unusable name, too many fields, or a value that is not JSON.
    """
    given: object = data
    if not isinstance(given, Mapping):
        raise ConfigurationError(f'data: a {type(given).__name__} has no names; write {{"theme": "dark"}}')
    pairs: list[bytes] = []
    for name, value in data.items():
        word = _field_name(name)
        try:
            pairs += [word, word + b"\t" + msgspec.json.encode(value)]
        except (TypeError, ValueError) as reason:
            raise ConfigurationError(f"data: {name!r} cannot be stored: {reason}") from None
    for name in [remove] if isinstance(remove, str) else remove:
        pairs += [_field_name(name), b""]
    if len(pairs) > 2 * MOST_FIELDS:
        raise ConfigurationError(f"data: at most {MOST_FIELDS} fields at once")
    return pairs


def _field_name(name: str) -> bytes:
    if type(name) is not str or name in RESERVED:
        raise ConfigurationError(
            f"data: {name!r} is not a name for a field; the store keeps {', '.join(sorted(RESERVED))}"
        )
    return msgspec.json.encode(name)


def encode_place(ip: str | None, user_agent: str | None) -> list[bytes]:
    """Return the two lines of a record that say where its user was; `''` for what is not known."""
    try:
        return [msgspec.json.encode(_cut(word)) if word else b"" for word in (ip, user_agent)]
    except TypeError:
        raise ConfigurationError(f"ip, user_agent: {ip!r}, {user_agent!r} must be text, or None") from None


def decode_session(
    digest: str, record: bytes, *, seen_us: int | None = None, ip: str | None = None, user_agent: str | None = None
) -> Session:
    """Return the session of a record; *seen_us* when it was seen later than the record says, *ip* … from where.

    Raises: ValueError for a record that this library has not written.
    """
    try:
        header, user, was_ip, was_agent, *fields = record.split(b"\n")
        version, created_us, noted_us, idle_us, last_us = map(int, header.split())
        content = b"[%s,%s,%s,{%s}]" % (
            user,
            was_ip or b"null",
            was_agent or b"null",
            b",".join(fields).replace(b"\t", b":"),
        )
        user_id, known_ip, known_agent, data = msgspec.json.decode(content, type=_Content)
    except msgspec.DecodeError as reason:
        raise ValueError(f"not a session: {reason}") from None
    seen_us = noted_us if seen_us is None else seen_us
    now_ip, now_agent = _cut(ip) or known_ip, _cut(user_agent) or known_agent
    return Session(
        user_id=user_id,
        data=data,
        ref=digest,
        created_at=_moment(created_us),
        last_seen_at=_moment(seen_us),
        expires_at=_moment(min(seen_us + idle_us, last_us)),
        ip=now_ip,
        user_agent=now_agent,
        version=version,
        changed=_changed(ip=(known_ip, now_ip), user_agent=(known_agent, now_agent)),
    )


def _changed(**places: tuple[str | None, str | None]) -> frozenset[str]:
    return frozenset(name for name, (known, now) in places.items() if known is not None and known != now)


def _cut(word: str | None) -> str | None:
    return None if word is None else word[:PLACE_CHARACTERS]


def _moment(us: int) -> datetime:
    try:
        return datetime.fromtimestamp(us / 1e6, UTC)
    except (OverflowError, OSError):
        raise ValueError(f"not a session: {us} is no time") from None
