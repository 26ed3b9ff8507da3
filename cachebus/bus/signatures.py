"""Signed events, for publishers that are not trusted with everything else the server holds. Pure.

In the style of Standard Webhooks: HMAC-SHA256 over id, time, channel and payload, several keys at once so that they can
be changed, and a time that must be close to when the server took the event.
Source: the Standard Webhooks specification; the channel is added, so that an event cannot be moved to another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from cachebus.bus.events import InvalidEvent, Pattern
from cachebus.errors import ConfigurationError

Policy = Literal["off", "warn", "require"]

TOLERANCE_S = 300
"""How far the publisher's clock may be from the server's. Source: Standard Webhooks."""
LONGEST_STAMP = 18
"""Digits: more than any time needs, and fewer than Python refuses to read as a number."""
SHORTEST_KEY_BYTES = 24
KEY_PREFIX = "whsec_"
VERSION = "v1"


class Signatures:
    """Which channels must be signed, and with which keys. The first key signs, all of them are accepted.

    `Signatures(["whsec_…"], {"orders:*": "require"})`; the first pattern that matches decides, the others are "off".
    Raises: ConfigurationError naming the key's number or the channel.
    """

    def __init__(self, keys: Iterable[str], channels: Mapping[str, Policy]) -> None:
        self._keys = [_key(key, number) for number, key in enumerate(keys, start=1)]
        for channel, policy in channels.items():
            if policy not in get_args(Policy):
                raise ConfigurationError(f"signatures: {channel!r} must be off, warn or require, not {policy!r}")
        self._policies: list[tuple[Pattern, Policy]] = [(Pattern(text), policy) for text, policy in channels.items()]
        if not self._keys and any(policy != "off" for _, policy in self._policies):
            raise ConfigurationError("signatures: channels are to be signed, but there is no key")

    def policy(self, channel: str) -> Policy:
        """Return what is asked of events on *channel*."""
        return next((policy for pattern, policy in self._policies if pattern.matches(channel)), "off")

    def sign(self, channel: str, name: str, payload: bytes, at_s: int) -> Sequence[str | int]:
        """Return the further fields of a record, name and value in turn; none where the channel is not signed."""
        if self.policy(channel) == "off":
            return ()
        return "timestamp", at_s, "signature", _signature(self._keys[0], name, at_s, channel, payload)

    def check(self, fields: Mapping[bytes, bytes], position: bytes) -> None:
        """Check the fields of a record that lies at *position*. Raises: InvalidEvent saying what is wrong."""
        signatures, stamp = fields.get(b"signature"), fields.get(b"timestamp", b"")
        if signatures is None:
            raise InvalidEvent("signature: there is none")
        if not stamp.isdigit() or len(stamp) > LONGEST_STAMP:
            raise InvalidEvent("signature: `timestamp` must be seconds of the epoch")
        taken_s = int(position.partition(b"-")[0]) // 1000
        if abs(taken_s - int(stamp)) > TOLERANCE_S:
            raise InvalidEvent(f"signature: its time is {abs(taken_s - int(stamp))} s from when the event arrived")
        name, channel = fields.get(b"id", b"").decode(errors="replace"), fields[b"channel"].decode(errors="replace")
        given = signatures.decode(errors="replace").split()
        for key in self._keys:
            right = _signature(key, name, int(stamp), channel, fields[b"payload"])
            if any(hmac.compare_digest(right.encode(), each.encode()) for each in given):
                return
        raise InvalidEvent("signature: it was not made with a key that is known here, or not for this event")


def _signature(key: bytes, name: str, at_s: int, channel: str, payload: bytes) -> str:
    content = f"{name}.{at_s}.{channel}.".encode() + payload
    return f"{VERSION},{base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()}"


def _key(text: str, number: int) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"signatures: key {number} is not base64") from None
    if len(key) < SHORTEST_KEY_BYTES:
        raise ConfigurationError(f"signatures: key {number} has {len(key)} bytes, {SHORTEST_KEY_BYTES} are needed")
    return key
