"""The reference pages that are written from the code: `python -m tests.docs` writes them, a test compares.

What a page says of a name is that name's docstring, declaration or row; here is only what belongs together.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

import cachebus
from cachebus import errors
from cachebus.bus.feed import FeedRecord
from cachebus.gateway.protocol import LARGEST_FRAME_BYTES, Hello, Subscribe, Unsubscribe
from cachebus.integrations.metric_table import TABLE
from tests.docs.chaos import chaos_page
from tests.docs.promises import promises_page
from tests.docs.targets.page import targets_page
from tests.docs.threats import threats_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
WRITTEN = "<!-- Written by `make pages`. -->"

API: dict[str, tuple[str, str]] = {
    "cache": (
        "Cache",
        "Cache View Policy AtomicValues Warmed UNCHANGED previous previous_validator validated caused_by Clock"
        " is_queued CacheSettings CacheStats ViewStats Client",
    ),
    "bus": ("Bus", "Bus on Invalidate Broadcast Refresh Publish Retry Drop Effects"),
    "schedules": ("Schedules", "every daily cron Warm"),
    "locks": ("Locks", "Locks"),
    "limits": ("Rate limits", "RateLimiter Limit"),
    "sessions": ("Sessions", "SessionStore"),
    "pubsub": ("Pub/sub", "PubSub"),
}
"""Page → heading, and the names of `cachebus` on it. The errors have a page of their own."""
MODULES: dict[str, tuple[str, list[str]]] = {
    "sync": ("Without an event loop", ["cachebus.sync"]),
    "integrations": (
        "Integrations",
        [
            "cachebus.integrations.fastapi",
            "cachebus.integrations.starlette",
            "cachebus.integrations.flask",
            "cachebus.integrations.django",
            "cachebus.integrations.asgi",
            "cachebus.integrations.sqlalchemy",
            "cachebus.gateway",
            "cachebus.monitoring.page",
        ],
    ),
    "testing": ("Testing", ["cachebus.testing"]),
}
"""Page → heading, and the modules whose public names are on it."""
PUBLIC = {
    "cachebus.integrations.starlette": ["cached_response", "respond", "lifespan"],
    "cachebus.integrations.sqlalchemy": [
        "on_commit.invalidate_on_commit",
        "on_commit.publish_on_commit",
        "outbox.Outbox",
    ],
}
"""What a module without `__all__` is imported for."""
METRICS = """
What a process publishes on `/metrics`, through OpenTelemetry, and what the dashboard and the alerts are made of.
Labels are templates of views and names of handlers, never keys. How to collect them: [OpenTelemetry, Prometheus or
anything else](../howto/watch-with-opentelemetry.md).
"""
KEYS = """
`ns` is the namespace (`CACHE_NAMESPACE`, `cachebus` by default). Names that begin with `{ns}:` share one hash slot
and must not be evicted; the others are spread. A run of the tests fails where a key without a TTL is left that is not
in this table. All are yours to read; what you may write is in the [events contract](events-contract.md).
"""
MESSAGES = """
What events look like is their handlers' affair; their envelope is in the [events contract](events-contract.md), what
a gateway says in [the gateway](gateway.md).
"""
INSIDE = {
    "Cache": "reader|observed|observers|names|in_process|reader_here|configure|connection|connected|noticed|default_ttl"
    "|views|client|clock",
    "View": "held|take|notice|read_with|run|warm_with|encode_arguments|decode_arguments|load",
    "Locks": "acquire|release_claim|renew|start|held_by",
    "Bus": "observers",
    "Client": "connection|names|start|at_us|now_us|store|entries",
    "CacheSettings": "report|problems|written",
}
"""What is for other parts of the library and not for its users."""


def api_page(heading: str, names: str) -> str:
    """Return the page of some names of `cachebus`."""
    return _page(heading, *(_identifier(f"cachebus.{name}", name) for name in names.split()))


def modules_page(heading: str, modules: list[str]) -> str:
    """Return the page of all public names of some modules."""
    parts = []
    for module in modules:
        parts += [f"## {module}", *(_identifier(f"{module}.{name}", name, level=3) for name in public(module))]
    return _page(heading, *parts)


def _page(heading: str, *parts: str) -> str:
    return "\n\n".join([f"# {heading}", WRITTEN, *(part.strip("\n") for part in parts)]) + "\n"


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join([head, re.sub(r"[^|]+", "---", head), *rows])


def public(module: str) -> list[str]:
    listed: list[str] = getattr(import_module(module), "__all__", [])
    return listed or PUBLIC[module]


def _identifier(identifier: str, name: str, level: int = 2) -> str:
    inside = f', "!^({INSIDE[name]})$"' if name in INSIDE else ""
    options = [f"heading_level: {level}", f'filters: ["!^_"{inside}]']
    if name in {"Cache", "View"}:
        options.append("inherited_members: true")
    lines = "".join(f"      {option}\n" for option in options)
    return f"::: {identifier}\n    options:\n{lines}"


def errors_page() -> str:
    """Return the tree of errors, and what each says."""
    tree = (errors.__doc__ or "").partition("\n\n")[2].strip()
    rows = [
        f"| `{name}` | {_first(kind)} | {', '.join(f'`{each}`' for each in _attributes(kind))} |"
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.CacheBusError)
    ]
    return _page(
        "Errors",
        "One tree; `except CacheBusError` catches all of it. What is not in `cachebus` is in `cachebus.errors`.",
        f"```text\n{tree}\n```",
        _table("| error | when | attributes |", rows),
    )


def _first(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def _attributes(kind: type) -> list[str]:
    if "__init__" not in vars(kind):
        return []
    return sorted(set(re.findall(r"self\.(\w+) =", inspect.getsource(kind))))


def metrics_page() -> str:
    """Return every metric, as Prometheus names it."""
    parts: dict[str, list[str]] = defaultdict(list)
    for row in TABLE.values():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        parts[row.part].append(f"| `{row.published}` | {row.kind} | {labels} | {row.meaning} |")
    tables = (f"## {part}\n\n{_table('| name | kind | labels | meaning |', rows)}" for part, rows in parts.items())
    return _page("Metrics", METRICS, *tables)


def used_names() -> dict[str, set[str]]:
    """Return the first word of every name in Redis that the code makes, and the modules that make it."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "cachebus").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                word = node.args[0]
                if node.func.attr in {"bus", "spread"} and isinstance(word, ast.Constant):
                    found[str(word.value)].add(str(file.relative_to(ROOT).with_suffix("")).replace("/", "."))
    return found


def keys_page() -> str:
    """Return the keys in Redis: ARCHITECTURE.md has the table, the code says which modules know each name."""
    used = used_names()
    table = ARCHITECTURE.read_text(encoding="utf-8").partition("| name | type | TTL |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    lines, in_table = [], set()
    for row in rows:
        words = [name.partition(":")[2].partition(":")[0] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
        modules = sorted({module for word in words for module in used.get(word, ())})
        lines.append(f"{row} {', '.join(f'`{module}`' for module in modules)} |")
        in_table.update(words)
    channels = [
        f"| `{{ns}}:{word}` | {', '.join(f'`{module}`' for module in sorted(used[word]))} |"
        for word in sorted(set(used) - in_table)
    ]
    return _page(
        "Keys in Redis",
        KEYS,
        _table("| name | type | TTL | written by | named in |", lines),
        "## Channels",
        "Nothing is stored under these names.",
        _table("| name | named in |", channels),
    )


def messages_page() -> str:
    """Return the frames and records that other programs read and write, as JSON Schema."""
    fields = (f"| `{name}` | `{kind}` |" for name, kind in FeedRecord.__annotations__.items())
    return _page(
        "Messages",
        MESSAGES,
        "## What a browser may send",
        f"Text frames of at most {LARGEST_FRAME_BYTES:,} bytes; what has another field is refused, by name.",
        *(_schema(kind) for kind in (Hello, Subscribe, Unsubscribe)),
        "## What handlers may answer",
        *(_effect(kind) for kind in (cachebus.Invalidate, cachebus.Broadcast, cachebus.Publish)),
        "## A record of the feed",
        "As `cachebus.bus.feed` reads it.",
        _table("| field | type |", fields),
    )


def _schema(kind: type) -> str:
    (schema,), components = msgspec.json.schema_components([kind])
    text = msgspec.json.format(msgspec.json.encode(components[schema["$ref"].rpartition("/")[2]]), indent=2).decode()
    return f"### {kind.__name__}\n\n{_first(kind)}\n\n```json\n{text}\n```"


def _effect(kind: Any) -> str:
    fields = msgspec.structs.fields(kind)
    rows = [f"| `{field.name}` | {'required' if field.required else f'`{field.default!r}`'} |" for field in fields]
    return f"### {kind.__name__}\n\n{_first(kind)}\n\n{_table('| field | default |', rows)}"


def navigation() -> Iterator[tuple[str, Path]]:
    """Yield the section and file of each page, in the order of the site's navigation."""
    section = ""
    for line in (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0].splitlines():
        if (named := re.match(r"  - (\w[\w ]*):", line)) is not None:
            section = named[1]
        if (page := re.search(r"[\w/.-]+\.md$", line)) is not None:
            yield section, DOCS / page[0]


def llms() -> str:
    """Return llms.txt: every page with its first sentence. Source: llmstxt.org."""
    lines = [
        "# cachebus",
        "",
        "> A cache that is never stale after an invalidation, an event bus on Redis that loses nothing, and a worker."
        " Python ≥ 3.11, asyncio and plain threads.",
    ]
    sections: dict[str, list[Path]] = defaultdict(list)
    for section, page in navigation():
        sections[section].append(page)
    for section, pages in sections.items():
        lines += ["", f"## {section or 'Start'}", ""]
        for page in pages:
            title, about = _summary(page)
            lines.append(f"- [{title}]({page.relative_to(DOCS)}): {about}")
    return "\n".join(lines) + "\n"


def _summary(page: Path) -> tuple[str, str]:
    heading, _, rest = page.read_text(encoding="utf-8").partition("\n")
    paragraphs = (part.strip() for part in rest.split("\n\n"))
    prose = [part for part in paragraphs if part and part[0] not in "<|`:#![-"]
    text = " ".join(prose[0].split()) if prose else ""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text).replace("**", "")
    sentence = re.match(r"(.{20,}?[.:?])(?:\s|$)", text)
    return heading.removeprefix("# "), (sentence[1] if sentence else text).rstrip(":")


PAGES: dict[str, Callable[[], str]] = {
    **{f"reference/api/{page}.md": lambda of=of: api_page(*of) for page, of in API.items()},  # type: ignore[misc]
    **{f"reference/api/{page}.md": lambda of=of: modules_page(*of) for page, of in MODULES.items()},  # type: ignore[misc]
    "reference/api/errors.md": errors_page,
    "reference/metrics.md": metrics_page,
    "reference/keys.md": keys_page,
    "reference/messages.md": messages_page,
    "reference/promises.md": promises_page,
    "reference/chaos.md": chaos_page,
    "reference/targets.md": targets_page,
    "reference/threat-model.md": threats_page,
    "llms.txt": llms,
}
"""Each page that is written, and by what; the last one reads the others."""
