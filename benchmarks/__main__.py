"""`python -m benchmarks [name …]`: measure, beside the peers, in one run. Without a name: the everyday rows.

`all` measures the rest, too. `python -m benchmarks soak [--minutes 30]` and `scale` are apart: they take half an hour.
"""

from __future__ import annotations

import importlib
import sys

EVERYDAY = ("cache", "bus", "primitives")
REST = (
    "memory",
    "freshness",
    "faults",
    "stampede",
    "journal",
    "waits",
    "gateway",
    "http",
    "traces",
    "predict",
    "outbox",
    "backlog",
    "advice",
    "warming",
    "start",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks one after the other."""
    if names[:1] == ["soak"]:
        importlib.import_module("benchmarks.soak").main(names[1:])
        return 0
    if names == ["all"]:
        names = [*EVERYDAY, *REST]
    parts = (*EVERYDAY, *REST, "scale")
    unknown = [name for name in names if name not in parts]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are: {', '.join((*parts, 'soak'))}; or all")
        return 2
    for name in names or EVERYDAY:
        print(f"== {name}")
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
