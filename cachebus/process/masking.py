"""Secrets in text, made unreadable before anyone prints it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

MASK = "***"
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/@:'\"]*):(?P<password>[^\s'\"]+)@")
_PARAMETER = re.compile(r"(?P<name>[?&;](?:\w*password|\w*secret|\w*token|\w*key)=)[^&\s'\"]+", re.IGNORECASE)
SHORTEST = 4
"""A shorter password would mask ordinary words; inside a URL it is masked all the same."""


def mask_urls(text: str) -> str:
    """Return *text* with the password of every URL in it, and every secret-looking query parameter, masked."""
    if "://" not in text:
        return text
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{MASK}@", text)
    return _PARAMETER.sub(rf"\g<name>{MASK}", text)


class Masking:
    """Knows this process's passwords and keys and masks them wherever they turn up, also outside a URL."""

    def __init__(self, urls: Iterable[str | None] = (), keys: Iterable[str] = ()) -> None:
        secrets = set(keys)
        for url in urls:
            password = _password(url)
            if password and len(password) >= SHORTEST:
                secrets |= {password, unquote(password), json.dumps(unquote(password))[1:-1]}
        longest_first = sorted(secrets, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if secrets else None

    def __call__(self, text: str) -> str:
        """Return *text* with everything secret masked."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return mask_urls(text)


def _password(url: str | None) -> str | None:
    if not url:
        return None
    try:
        return urlsplit(url).password
    except ValueError:  # a malformed URL is reported elsewhere
        return None
