"""How the arguments of a call become its key, tags and scopes. Pure.

Compiled once for each view, as dataclasses do: to bind a signature at each call costs more than the rest of a hit.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import EVERYTHING, scopes_of
from cachebus.templates import BOUND, Template, escape, marked, never_a_word, optional, plain

RESERVED = frozenset({"fresh_after", "strict"})
"""Words that may be added to any call of a view."""


class Binding:
    """One function under one key template. Calls are described by the function's own signature."""

    arguments: Callable[..., dict[str, Any]]
    """Called as the function: the arguments by name, defaults filled in. Raises: TypeError."""
    key: Callable[..., str]
    named: Callable[..., tuple[str, tuple[str, ...], tuple[str, ...]]]
    """The key, tags and scopes of a call."""

    def __init__(
        self, what: str, function: Callable[..., Any], template: str, tags: Sequence[str], not_in_key: Sequence[str]
    ) -> None:
        self.what = what
        self.signature = inspect.signature(function)
        self._globals = getattr(inspect.unwrap(function), "__globals__", {})
        parameters = self.signature.parameters
        self.bound = next(iter(parameters), "") in BOUND
        """Whether it is a method: its first argument is the object it belongs to."""
        words = {name: self._word(parameter) for name, parameter in parameters.items()}
        self.template = Template(template, parameters, what=what, word=escape, words=words)
        self.tag_templates = [Template(tag, parameters, what=f"{what}: tag", word=plain) for tag in tags]
        self._check(not_in_key)
        self._name = getattr(function, "__qualname__", template)
        self._compile()

    @property
    def returns(self) -> Any:
        """The declared type of its results; Any where there is none. Raises: ConfigurationError for a name unknown."""
        declared = self.signature.return_annotation
        if declared is inspect.Signature.empty:
            return Any
        try:
            return self._evaluated(declared)
        except Exception as unknown:  # noqa: BLE001 - an annotation may be any expression
            raise ConfigurationError(
                f"{self.what}: the return type {declared!r} cannot be looked up ({unknown}); define or import it at "
                "the top of the module, not within a function or under TYPE_CHECKING"
            ) from None

    def encoded(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the arguments of a call as JSON, to be loaded by another process. Raises: TypeError."""
        return msgspec.json.encode(list(self.arguments(*args, **kwargs).values()))

    def decoded(self, encoded: bytes) -> tuple[Any, ...]:
        """Return arguments for a call, converted to the declared types. Raises: msgspec.ValidationError."""
        values = msgspec.json.decode(encoded, type=list[Any])
        if len(values) != len(self._types):
            raise msgspec.ValidationError(f"{self.what}: {len(self._types)} arguments expected, got {len(values)}")
        return tuple(msgspec.convert(value, hint) for value, hint in zip(values, self._types, strict=True))

    def misfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError | None:
        """Return why these cannot be the arguments of a call, and what can; None where they can."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as wrong:
            only = [name for name, each in self.signature.parameters.items() if each.kind is each.KEYWORD_ONLY]
            hint = f"; by name only: {', '.join(f'{name}=' for name in only)}" if only else ""
            return TypeError(f"{self.what}: {wrong}; its arguments are {self.signature}{hint}")
        for name, value in self.arguments(*args, **kwargs).items():
            if name in self.template.fields and name not in BOUND:
                try:
                    self.template.word_of(name)(value)
                except TypeError as wrong:
                    return TypeError(f"{self.what}: parameter {name!r}: {wrong}")
        return None

    def kinds_of(self, field: str) -> set[type]:
        """Return the classes whose values a field of the template takes; none where it takes anything."""
        parameter = self.signature.parameters.get(field)
        return (_kinds(self._declared(parameter)) or set()) - {type(None)} if parameter is not None else set()

    # -- inside -----------------------------------------------------------------------------------------------------

    @cached_property
    def _types(self) -> list[Any]:
        return [self._declared(parameter) for parameter in self.signature.parameters.values()]

    def _declared(self, parameter: inspect.Parameter) -> Any:
        """Return the type of a parameter; Any where none is given, or none that can be looked up."""
        if parameter.annotation is parameter.empty:
            return Any
        try:
            return self._evaluated(parameter.annotation)
        except Exception:  # noqa: BLE001 - the same; names that only a type checker sees are usual
            return Any

    def _evaluated(self, annotation: Any) -> Any:
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        return get_type_hints(holder, globalns=self._globals, include_extras=True)["it"]

    def _word(self, parameter: inspect.Parameter) -> Callable[[object], str]:
        """Return how a parameter is written into the key: as text, if no other argument can be the same text."""
        kinds = _kinds(self._declared(parameter))
        if kinds is None:
            return marked
        others = kinds - {type(None)}
        if len(others) > 1:
            return marked
        return optional if others and (len(kinds) > 1 or parameter.default is None) else escape

    def _check(self, not_in_key: Sequence[str]) -> None:
        """Every parameter shapes the result, so every parameter is in the key, unless the view says otherwise."""
        parameters = self.signature.parameters
        for parameter in parameters.values():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise ConfigurationError(
                    f"{self.what}: parameter {parameter.name!r} cannot be given by name; leave out the '/' behind it"
                )
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ConfigurationError(
                    f"{self.what}: parameter {parameter} cannot be part of a key; name each parameter"
                )
            if parameter.name in RESERVED:
                raise ConfigurationError(
                    f"{self.what}: parameter {parameter.name!r} is a word of every view; rename it"
                )
        if unknown := [name for name in not_in_key if name not in parameters]:
            names = ", ".join(parameters) or "none"
            raise ConfigurationError(f"{self.what}: not_in_key names {unknown[0]!r}; the parameters are: {names}")
        for name, parameter in parameters.items():
            if name in self.template.fields and name not in BOUND:
                self._check_word(parameter)
            if name in self.template.fields or name in not_in_key:
                continue
            if name in BOUND:
                raise ConfigurationError(
                    f"{self.what}: what a method returns may depend on its object: name what it depends on in the key, "
                    f"as {{{name}.tenant}}, or say not_in_key=[{name!r}] if it depends on nothing"
                )
            raise ConfigurationError(
                f"{self.what}: parameter {name!r} shapes the result but is not in the key; "
                f"add {{{name}}}, or say not_in_key=[{name!r}]"
            )

    def _check_word(self, parameter: inspect.Parameter) -> None:
        kinds = self.kinds_of(parameter.name)
        if kinds and all(map(never_a_word, kinds)):
            name = parameter.name
            raise ConfigurationError(
                f"{self.what}: parameter {str(parameter)!r} can never be part of a key; take an id instead, or a text "
                f"made of it, or leave {{{name}}} out of the key and say not_in_key=[{name!r}]"
            )

    def _compile(self) -> None:
        arguments = ", ".join(f"{name!r}: {name}" for name in self.signature.parameters)
        tags = f"({''.join(f'{tag.source()}, ' for tag in self.tag_templates)})"
        self.arguments = self.compiled(f"{{{arguments}}}")
        self.key = self.compiled(self.template.source())
        self.named = self.compiled(f"((__key := {self.template.source()}), {tags}, {self._scopes_source(tags)})")

    def compiled(self, result: str) -> Callable[..., Any]:
        """Return a function that is called as the view is, and returns *result*, an expression of its parameters."""
        parameters = [
            parameter.replace(annotation=inspect.Parameter.empty) for parameter in self.signature.parameters.values()
        ]
        defaults = {f"_{p.name}": p.default for p in parameters if p.default is not inspect.Parameter.empty}
        head = ", ".join(_declaration(p) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        only = ", ".join(_declaration(p) for p in parameters if p.kind is p.KEYWORD_ONLY)
        declared = ", ".join(part for part in (head, f"*, {only}" if only else "") if part)
        scope = {**defaults, **{f"__{each.__name__}": each for each in (escape, marked, optional, plain, scopes_of)}}
        function = cast("types.FunctionType", eval(f"lambda {declared}: {result}", scope))  # noqa: S307 - text made of a signature and templates, all of them the programmer's
        function.__name__ = function.__qualname__ = self._name  # what Python says of wrong arguments names the view
        return function

    def _scopes_source(self, tags: str) -> str:
        """Return `scopes_of(key, tags)` as a Python expression: written out, unless marks change the key."""
        key = self.template
        if any(key.word_of(name) is not escape for _, name in key.parts if name is not None):
            return f"__scopes_of(__key, {tags})"
        prefixes = [
            key.source_of([("p:", None), *key.parts[:at], (literal[: colon.end()], None)])
            for at, (literal, _) in enumerate(key.parts)
            for colon in re.finditer(":", literal)
        ]
        scopes = ["'k:' + __key", *prefixes, *[tag.source("t:") for tag in self.tag_templates], repr(EVERYTHING)]
        return f"({', '.join(scopes)})"


def unwrapped(function: Any) -> tuple[Any, bool]:
    """Return the function below `@classmethod` or `@staticmethod`, and whether it is a class's."""
    over = isinstance(function, classmethod | staticmethod)
    return function.__func__ if over else function, isinstance(function, classmethod)


def _declaration(parameter: inspect.Parameter) -> str:
    return parameter.name if parameter.default is parameter.empty else f"{parameter.name}=_{parameter.name}"


def _kinds(declared: Any) -> set[type] | None:
    """Return the classes whose values a parameter takes; None where it takes anything."""
    if declared in (Any, object) or isinstance(declared, TypeVar):
        return None
    origin = get_origin(declared)
    if origin is Literal:
        return {type(value) for value in get_args(declared)}
    if origin in (Union, types.UnionType):
        parts = [_kinds(part) for part in get_args(declared)]
        return None if None in parts else set().union(*[part for part in parts if part is not None])
    for inner in ("__origin__", "__supertype__", "__value__"):  # Annotated, NewType, a `type` statement
        if origin in (None, Annotated) and hasattr(declared, inner):
            return _kinds(getattr(declared, inner))
    return {origin or declared} if isinstance(origin or declared, type) else None
