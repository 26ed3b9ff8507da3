"""Views whose calls may have the same key are refused when they are declared: each would serve the other's values."""

from __future__ import annotations

import importlib
import sys
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cachebus import Cache, ConfigurationError


def declared(cache: Cache, template: str, **parameters: Any) -> None:
    """Declare a view with parameters of these types."""

    async def function(**_: object) -> int:
        return 1

    taken = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in parameters.items()]
    function.__signature__ = Signature(taken, return_annotation=int)  # type: ignore[attr-defined] # where inspect looks
    function.__qualname__ = f"of {template}"
    cache.view(template)(function)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("total:{user_id}", {"user_id": int}), ("total:{product_id}", {"product_id": int})),
        (("total:{user_id}", {"user_id": int}), ("total:{sku}", {"sku": str})),
        (("news:{slug}", {"slug": str}), ("news:latest", {})),
        (("page:{n}", {"n": int}), ("page:1", {})),
        (("q:{i}:{j}", {"i": int, "j": Any}), ("q:{i}:x", {"i": int})),
        (("v{n}:x", {"n": int}), ("{word}:x", {"word": str})),
        (("{a}-{b}", {"a": str, "b": str}), ("{c}-x-{d}", {"c": str, "d": str})),
        (("who:{id}", {"id": UUID | None}), ("who:{name}", {"name": str | None})),
    ],
)
def test_two_that_may_have_one_key(one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]) -> None:
    """In either order; the error names both, and what to write."""
    for first, second in ((one, other), (other, one)):
        cache = Cache.memory()
        declared(cache, first[0], **first[1])
        with pytest.raises(ConfigurationError, match="would share its values with") as refused:
            declared(cache, second[0], **second[1])
        assert first[0] in str(refused.value)
        assert second[0] in str(refused.value)
        assert list(cache.views) == [first[0]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("total:{user_id}", {"user_id": int}), ("totals:{user_id}", {"user_id": int})),
        (("news:{number}", {"number": int}), ("news:latest", {})),
        (("user:{id}", {"id": str}), ("user:{id}:orders", {"id": str})),
        (("v{n}:x", {"n": int}), ("version:x", {})),
        (("a:{x}b", {"x": str}), ("a:{x}c", {"x": str})),
        (("who:{id}", {"id": UUID}), ("who:me", {})),
        (("file:a/b", {}), ("file:{name}", {"name": str})),
    ],
)
def test_two_that_cannot(one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]) -> None:
    """By their words, or by what their parameters are made of; what is escaped is never a sign of the template."""
    cache = Cache.memory()
    declared(cache, one[0], **one[1])
    declared(cache, other[0], **other[1])
    assert len(cache.views) == 2


def test_one_function_under_several_keys() -> None:
    """A loop, or a factory, declares what it likes."""
    cache = Cache.memory()
    for name in ("a", "b"):

        @cache.view(f"{name}:{{n}}")
        async def one_of_many(n: int) -> int:
            return n

    assert list(cache.views) == ["a:{n}", "b:{n}"]


async def test_a_module_that_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook or a REPL does it: the view is the one that was written last, also under another template."""
    (tmp_path / "shared_cache.py").write_text("from cachebus import Cache\ncache = Cache.memory()\n")
    module = tmp_path / "loaded_again.py"
    text = "from shared_cache import cache\n@cache.view('{key}')\n"
    text += "async def loaded({name}: int) -> int:\n    return {name} + {more}\n"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for key, name, more in (("n:{n}", "n", 1), ("n:{n}", "n", 2), ("n:{number}", "number", 3)):
        module.write_text(text.replace("{key}", key).replace("{name}", name).replace("{more}", str(more)))
        loaded: Any = importlib.reload(sys.modules["loaded_again"]) if "loaded_again" in sys.modules else None
        loaded = loaded or importlib.import_module("loaded_again")
        assert list(loaded.cache.views) == [key]
        assert await loaded.loaded(more) == 2 * more
    del sys.modules["loaded_again"], sys.modules["shared_cache"]
