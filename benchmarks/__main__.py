"""`python -m benchmarks [name …]`: measure, beside the peers, in one run. Without a name: all.

`python -m benchmarks soak [--minutes 30]` is apart: it takes half an hour.
"""

from __future__ import annotations

import importlib
import sys

PARTS = (
    "cache",
    "memory",
    "freshness",
    "stampede",
    "bus",
    "outbox",
    "journal",
    "dictionaries",
    "primitives",
    "gateway",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks one after the other."""
    if names[:1] == ["soak"]:
        importlib.import_module("benchmarks.soak").main(names[1:])
        return 0
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are: {', '.join(PARTS)}")
        return 2
    for name in names or PARTS:
        print(f"== {name}")
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
