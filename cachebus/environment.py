"""Settings from environment variables: one declaration each, every bad value listed at once, secrets never shown.

A room declares its variables as the fields of a frozen dataclass; `read` fills it from an environment:

    @dataclass(frozen=True, slots=True)
    class BusSettings:
        shards: int = variable("BUS_SHARDS", "1", whole(1, 64), "Streams that events are spread over")

The same declaration serves `cachebus config`, the settings page and the warning about a misspelt name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from cachebus.durations import milliseconds
from cachebus.errors import ConfigurationError

Section = TypeVar("Section")
Parse = Callable[[str, str], Any]
"""Turns the text of a variable into its value; called with name and text, raises ConfigurationError."""

OWN_PREFIXES = ("CACHE_", "BUS_", "GATEWAY_")
"""Names that begin so are meant for this library, however far they are from a real one."""
_NEAR = 0.9
_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its default as one would write it, how its text is read, what it means."""

    name: str
    default: str
    parse: Parse
    meaning: str
    secret: bool = False

    def read(self, text: str) -> Any:
        """Return the value of *text*, of the default where it is empty; None where that is empty too."""
        text = text or self.default
        return self.parse(self.name, text) if text else None


def variable(
    name: str, default: str, parse: Parse, meaning: str, *, secret: bool = False, preferred: Variable | None = None
) -> Any:
    """Declare a field that is read from the variable *name*, or from *preferred* where that one is set."""
    own = Variable(name, default, parse, meaning, secret)
    declared = (own,) if preferred is None else (preferred, own)
    return field(default=own.read(""), repr=not secret, metadata={"variables": declared})


def read(section: type[Section], environment: Mapping[str, str], problems: list[str]) -> Section:
    """Return *section* filled from *environment*. Each bad value adds a line to *problems* and gets its default.

    A section's own `problems()`, where it has one, says what its values cannot be together.
    """
    values: dict[str, Any] = {}
    for each in fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        for declared in reversed(each.metadata.get("variables", ())):
            text = environment.get(declared.name, "").strip()  # platforms pass an unset variable as an empty one
            if text:
                try:
                    values[each.name] = declared.read(text)
                except ConfigurationError as problem:
                    problems.append(str(problem))
    filled = section(**values)
    problems += getattr(filled, "problems", tuple)()
    return filled


def variables(*sections: type) -> Iterator[Variable]:
    """Yield the variables of *sections*, in the order of their declaration."""
    for section in sections:
        for each in fields(section):
            yield from each.metadata.get("variables", ())


def misspelt(environment: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Yield a warning for each name that is nearly one of *known*, or has its words: CACHE_TTL, CACHE_DEFAULT_TTL."""
    from difflib import get_close_matches  # noqa: PLC0415 - what reads its settings elsewhere looks for no mistakes

    known = list(known)
    for name in environment:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1, cutoff=_NEAR) or _swapped(name, known)
        if not near and name.startswith(OWN_PREFIXES):
            alike = [each for each in known if "_" in each and _share_words(set(name.split("_")), set(each.split("_")))]
            near = get_close_matches(name, alike, n=1, cutoff=0.0)
        if near:
            yield f"{name}: is not a setting; did you mean {near[0]}?"


@cache
def warn_once(warning: str) -> None:
    """Log a warning, unless it was: several parts of a process may read the same environment."""
    logging.getLogger("cachebus").warning(warning)


def _swapped(name: str, known: Iterable[str]) -> list[str]:
    """Return what has the same letters: in a short name, two that changed places make no near match."""
    return [each for each in known if sorted(each) == sorted(name)][:1]


def _share_words(one: set[str], other: set[str]) -> bool:
    return one <= other or other <= one


# -- how a text becomes a value: each raises ConfigurationError that names the variable, the value and the fix --------


def text(_name: str, text: str) -> str:
    """Return the text as it is."""
    return text


def flag(name: str, text: str) -> bool:
    """Read yes or no."""
    if text.lower() in _YES | _NO:
        return text.lower() in _YES
    raise ConfigurationError(f"{name}: {text!r} is neither yes nor no; write true or false")


def whole(least: int, most: int | None = None) -> Callable[[str, str], int]:
    """Read a whole number within bounds."""
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(name: str, text: str) -> int:
        good = text.isascii() and text.isdigit() and least <= int(text)
        if not good or (most is not None and int(text) > most):
            raise ConfigurationError(f"{name}: {text!r} is not a whole number {bounds}")
        return int(text)

    return parse


def amount(least: float, most: float) -> Callable[[str, str], float]:
    """Read a number within bounds."""

    def parse(name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise ConfigurationError(f"{name}: {text!r} is not a number from {least:g} to {most:g}")
        return value

    return parse


def duration_ms(least: str = "1ms", most: str = "3650d") -> Callable[[str, str], int]:
    """Read a duration such as "90s" as milliseconds; a bare number is seconds. *least* may be "0s"."""

    def parse(name: str, text: str) -> int:
        if least == "0s" and text.strip("0.s") == "":
            return 0
        ms = milliseconds(float(text) if text.replace(".", "", 1).isdigit() else text, name)
        if (least != "0s" and ms < milliseconds(least, name)) or ms > milliseconds(most, name):
            raise ConfigurationError(f"{name}: {text!r} is out of bounds; choose {least} to {most}")
        return ms

    return parse


def one_of(*words: str) -> Callable[[str, str], str]:
    """Read one of a few words, in any case."""

    def parse(name: str, text: str) -> str:
        if text.lower() not in words:
            raise ConfigurationError(f"{name}: {text!r} is unknown; choose {', '.join(words)}")
        return text.lower()

    return parse


def words(_name: str, text: str) -> tuple[str, ...]:
    """Read words separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def modules(name: str, text: str) -> tuple[str, ...]:
    """Read dotted names of modules or packages, separated by commas."""
    for each in words(name, text):
        if not all(part.isidentifier() for part in each.split(".")):
            raise ConfigurationError(f"{name}: {each!r} is not the name of a package; write it like shop.handlers")
    return words(name, text)


def attribute(name: str, text: str) -> tuple[str, str]:
    """Read `package.module:name`."""
    module, colon, own = text.partition(":")
    if not colon or not own.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(f"{name}: {text!r} is not package.module:name; write it like shop.views:cache")
    return module, own
