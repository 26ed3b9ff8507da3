"""A wrong tag is silent: it invalidates nothing. What handlers name is compared with what views declare, at start.

Only what can be known: text and f-strings that stand inside `Invalidate(...)` in a handler's source. A name that a
function makes, or a view whose tags come from its value, is not judged.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cachebus.cache.view import View

ANY = "\x00"
"""Stands for whatever a parameter or an expression becomes: one word, without ':'."""
_PARAMETER = re.compile(r"\{[^{}]*\}")


def unmatched(functions: Iterable[Callable[..., Any]], views: Iterable[View[Any, Any]]) -> Iterator[str]:
    """Yield a warning for each tag, key or prefix literal that reaches no view."""
    views = list(views)
    names = [_PARAMETER.sub(ANY, view.name) for view in views]
    tags = [_PARAMETER.sub(ANY, tag) for view in views for tag in view.tag_templates]
    for function in functions:
        for kind, text in _named(function):
            if kind == "prefix":
                reached = any(_may_begin(name, text) for name in names)
            else:
                reached = any(_may_equal(text, known) for known in (tags if kind == "tags" else names))
            if not reached:
                readable = text.replace(ANY, "{…}")
                yield f"{function.__module__}.{function.__name__}: {kind} {readable!r} reaches no view"


def _named(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield what the `Invalidate(...)` calls of a function name: which argument, and the text with ANY in it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source to read, as in a frozen program
        return
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and _name_of(call.func) == "Invalidate"):
            continue
        for argument in call.keywords:
            if argument.arg in {"tags", "keys", "prefix"}:
                values = argument.value.elts if isinstance(argument.value, ast.List | ast.Tuple) else [argument.value]
                for value in values:
                    if (text := _text(value)) is not None:
                        yield argument.arg, text


def _name_of(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _text(value: ast.expr) -> str | None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in value.values)
    return None


def _may_equal(one: str, other: str) -> bool:
    """Return whether two texts with ANY in them may become the same text."""
    return bool(re.fullmatch(_pattern(one), other) or re.fullmatch(_pattern(other), one))


def _may_begin(name: str, prefix: str) -> bool:
    """Return whether a name may begin with a prefix, both with ANY in them: word by word."""
    words, wanted = name.split(":"), prefix.removesuffix(":").split(":")
    return len(wanted) < len(words) and all(map(_may_equal, wanted, words))


def _pattern(text: str) -> str:
    return "[^:]+".join(map(re.escape, text.split(ANY)))
