"""The body of a response, with its entity tag: made once of each value. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from cachebus.errors import NotCacheable
from cachebus.foreign import is_model, plain_of

Header = tuple[bytes, bytes]

JSON = "application/json"
TAG_BYTES = 16
"""Of the digest: two bodies of one address never share a tag by chance."""


class Body:
    """The bytes of a response, the headers that describe them, and their entity tag.

    The tag is weak: a middleware or proxy that compresses sends other bytes under it (RFC 9110, 8.8.1).
    """

    __slots__ = ("data", "described", "tag")

    def __init__(self, data: bytes, media_type: str | None) -> None:
        digest = hashlib.blake2b(data, digest_size=TAG_BYTES).digest()
        self.data = data
        self.tag = b'W/"%b"' % base64.urlsafe_b64encode(digest).rstrip(b"=")
        length = (b"content-length", b"%d" % len(data))
        self.described: tuple[Header, ...] = (
            (length,) if media_type is None else ((b"content-type", media_type.encode("latin-1")), length)
        )

    def __len__(self) -> int:
        return len(self.data)


def json_body(value: Any) -> Body:
    """Return *value* as JSON. Raises: NotCacheable naming what JSON does not know."""
    try:
        return Body(_encode(value), JSON)
    except (TypeError, ValueError, OverflowError, RecursionError) as unknown:
        raise NotCacheable(f"the response cannot be written as JSON: {unknown}") from None


def body_of_type(media_type: str) -> Callable[[Any], Body]:
    """Return what sends bytes or text as they are, as *media_type*."""
    full = (
        f"{media_type}; charset=utf-8" if media_type.startswith("text/") and "charset" not in media_type else media_type
    )

    def raw_body(value: Any) -> Body:
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            raise NotCacheable(
                f"the response is a {type(value).__name__}: a view with media_type={media_type!r} returns bytes or text"
            )
        return Body(value, full)

    return raw_body


def _foreign(value: Any) -> Any:
    """Write what msgspec does not know: a Pydantic model with its computed fields, the others as everywhere."""
    if is_model(type(value)):
        return msgspec.Raw(type(value).__pydantic_serializer__.to_json(value, by_alias=True))
    return plain_of(value)


_encode = msgspec.json.Encoder(enc_hook=_foreign).encode
