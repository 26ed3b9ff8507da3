"""Templates of keys and tags: how the arguments of a call become a name. Pure.

A key is words joined by ':'. Parameters are escaped, so none can add a ':' of its own: user 1 never reaches user 12,
and `order:*` never reaches `orders:…`. Tags are opaque strings; of a parameter only control characters are escaped.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from inspect import isabstract
from string import Formatter
from typing import Any

from cachebus.errors import ConfigurationError

UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""What no key, tag or prefix may hold: control characters, and lone surrogates, which UTF-8 cannot write."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NO_UTF8 = "holds a lone surrogate, which UTF-8 cannot write"
"""What errors say of a name for which `has_surrogate` is true."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
LONGEST_NAME = 200
"""Longer keys are stored under a digest; the scopes still come from the key itself."""
_WORDS = (str, int, float, type(None), datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@+=,~-]")
BOUND = frozenset({"self", "cls"})
"""What the first parameter of a method is called: not an argument, but whose method it is."""
_KINDS = (
    *((type(None), "none"), (bool, "bool"), (int, "int"), (float, "float"), (decimal.Decimal, "decimal")),
    *((uuid.UUID, "uuid"), (datetime.datetime, "datetime"), (datetime.date, "date"), (datetime.time, "time")),
    *((datetime.timedelta, "timedelta"), (Enum, "enum")),
)
"""Marks in keys; the first that fits."""
_MARK = re.compile("%[a-z]+")


def escape(value: object) -> str:
    """Return *value* as one word of a key: `str()` of it, enums by value, anything unusual as %XX."""
    if type(value) is int:
        return str(value)
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, _WORDS):
        raise TypeError(f"{type(value).__name__} cannot be part of a key; pass an id, not the object")
    text = str(value)
    if text.isalnum() and text.isascii():
        return text
    if has_surrogate(text):
        raise TypeError(f"{text!r} cannot be part of a key: it {NO_UTF8}")
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text) or "%"


def never_a_word(kind: type) -> bool:
    """Return whether no value of *kind* is accepted by `escape`; False for a base or protocol that one may fulfil."""
    if getattr(kind, "_is_protocol", False) or isabstract(kind):
        return False
    accepted = (*_WORDS, Enum)
    return not any(issubclass(kind, each) or issubclass(each, kind) for each in accepted)


def has_surrogate(text: str) -> bool:
    """Return whether *text* holds a lone surrogate: bytes that were no UTF-8, or half a character of JSON."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def marked(value: object) -> str:
    """Return `escape(value)`, with its kind behind it unless it is text: `7%int`, `None%none`.

    For parameters that take several types: 7 and "7" are different arguments. No text is escaped to such a mark.
    """
    if type(value) is int:
        return f"{value}%int"
    if isinstance(value, str):
        return escape(value)
    kind = next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__.lower())
    return f"{escape(value)}%{kind}"


def optional(value: object) -> str:
    """Return `escape(value)`, None with a mark. For parameters that take None beside one type."""
    return "None%none" if value is None else escape(value)


def unmarked(key: str) -> str:
    """Return *key* as it would be if all its parameters were text: the name that other languages give it."""
    return _MARK.sub("", key) if "%" in key else key


def plain(value: object) -> str:
    """Return *value* as it stands in a tag: `str()` of it, enums by value, without control characters."""
    return without_controls(str(value.value) if isinstance(value, Enum) else str(value))


def without_controls(text: str) -> str:
    """Return *text* with its control characters as %XX: no parameter makes a tag that nobody can name."""
    return text if text.isprintable() else _CONTROL.sub(_percent, text)


def as_name(text: str) -> str:
    """Return *text* with what no name may hold as %XX, and `%` as well: different texts stay different names."""
    return UNFIT.sub(_percent, text.replace("%", "%25"))


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


class Template:
    """A text with named parameters, `"orders:{user_id}:total"`, formatted the same way everywhere.

    *word* turns a parameter's value into text; *words* has others for some parameters. A method's own object may be
    named by its attributes: `{self.tenant}`.
    """

    def __init__(
        self,
        text: str,
        parameters: Iterable[str],
        *,
        what: str,
        word: Callable[[object], str],
        words: Mapping[str, Callable[[object], str]] | None = None,
    ) -> None:
        if not text or UNFIT.search(text):
            raise ConfigurationError(f"{what}: {text!r} must be text without control characters or lone surrogates")
        known = frozenset(parameters)
        self.text = text
        self.word = word
        self._words = words or {}
        self.parts: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in _parsed(text, what):
            if name is not None and (spec or conversion or not _is_field(name, known)):
                hint = f"parameters are {', '.join(sorted(known)) or 'none'}"
                raise ConfigurationError(f"{what}: {{{name}}} in {text!r} is not a plain parameter name; {hint}")
            self.parts.append((literal, name))
        self.fields = frozenset(name.partition(".")[0] for _, name in self.parts if name is not None)

    def format(self, arguments: Mapping[str, Any]) -> str:
        """Return the text for these arguments."""
        return "".join(
            literal if name is None else literal + self.word_of(name)(_value(arguments, name))
            for literal, name in self.parts
        )

    def source(self, before: str = "") -> str:
        """Return this text, *before* in front, as a Python expression of the parameters and `__escape` and its like."""
        return self.source_of([(before, None), *self.parts])

    def source_of(self, parts: Iterable[tuple[str, str | None]]) -> str:
        """Return some parts of it as a Python expression."""
        pieces = [
            repr(literal) + (f" + __{self.word_of(name).__name__}({name})" if name else "") for literal, name in parts
        ]
        return " + ".join(pieces)

    def word_of(self, name: str) -> Callable[[object], str]:
        """Return what turns a parameter into text."""
        return self._words.get(name.partition(".")[0], self.word)


def _parsed(text: str, what: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(text))
    except ValueError as malformed:
        raise ConfigurationError(f"{what}: {text!r}: {malformed}; write parameters as {{name}}") from None


def _is_field(name: str, known: frozenset[str]) -> bool:
    owner, dot, attribute = name.partition(".")
    return name in known or bool(dot and owner in known and owner in BOUND and attribute.isidentifier())


def _value(arguments: Mapping[str, Any], name: str) -> Any:
    owner, dot, attribute = name.partition(".")
    return getattr(arguments[owner], attribute) if dot else arguments[owner]


def stored_name(key: str) -> str:
    """Return the name *key* is stored under: itself, or a digest when it is long or would break a hash tag."""
    if len(key) <= LONGEST_NAME and "{" not in key and "}" not in key:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{re.sub('[{}]', '', key[:60])}~{digest}"
