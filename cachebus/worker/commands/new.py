"""`new NAME`: write a small application that runs at once. Its files are in `cachebus/worker/template/`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

from cachebus.errors import CannotStart

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
RUN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "": ("cachebus dev",),
        "fastapi": ("cachebus dev -- uvicorn web:app --port 8000",),
        "flask": ("cachebus dev --cache web:cache -- flask --app web run --port 8000",),
        "django": (
            "python manage.py migrate",
            "python manage.py cachebus dev -- python manage.py runserver 8000",
        ),
    }
)
"""What runs what is written, by framework."""
_PLACEHOLDER = re.compile(r"\bNAME\b(?!\":)")


def main(asked: argparse.Namespace, _environment: Mapping[str, str]) -> int:
    """Write the files and print what to do next. Raises: CannotStart, before anything is written."""
    folder = Path(asked.name)
    if not _NAME.fullmatch(folder.name):
        raise CannotStart([f"{folder.name!r} is not a good name; use small letters, digits, '-' and '_'"])
    if folder.exists():
        raise CannotStart([f"{asked.name} is there already; choose another name"])
    try:
        folder.mkdir(parents=True)
    except OSError as refused:
        raise CannotStart([f"{asked.name} cannot be made: {refused.strerror}; choose another place"]) from None
    for name, text in application(folder.name, asked.framework):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "wheels").mkdir()
    run = "\n    ".join(RUN[asked.framework])
    sys.stdout.write(
        f"{asked.name} is written. Next:\n\n    cd {asked.name}\n    {run}\n\nREADME.md says what is what.\n"
    )
    return 0


def application(name: str, framework: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name, or the path in the folder, and the text of each file."""
    template = files("cachebus.worker") / "template"
    texts = dict(_texts(template / "base"))
    if framework == "django":  # has its own places for everything that is Python
        texts = {path: text for path, text in texts.items() if not path.endswith(".py.txt")}
    if framework:
        texts |= _texts(template / framework)
    for path, text in texts.items():
        yield path.removesuffix(".txt").replace("dot.", ".", 1), _PLACEHOLDER.sub(name, text)


def _texts(folder: Traversable, within: str = "") -> Iterator[tuple[str, str]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _texts(each, f"{within}{each.name}/")
        else:
            yield within + each.name, each.read_text(encoding="utf-8")
