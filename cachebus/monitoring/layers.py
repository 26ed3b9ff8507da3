"""What answered reads, made of the counters of views. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CACHED = ("memory", "redis", "joined", "missed")
"""How a read of what may be cached is answered: these make the hit rate."""
READS = (*CACHED, "bypassed")
LAYERS = {
    "memory": ("l1_hits",),
    "redis": ("l2_hits",),
    "joined": ("joined",),
    "missed": ("loads", "load_errors", "misses"),
    "bypassed": ("bypassed",),
    "refreshes": ("refreshes",),
    "warms": ("warms",),
    "loaded": ("loads", "refreshes", "warms"),
    "errors": ("load_errors", "background_errors"),
}
"""What is shown -> the counters it is made of."""


def layers_of(views: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return how the reads of some views were answered, and how often the source was asked, whatever for."""
    counted = list(views)
    return {shown: sum(view[name] for view in counted for name in names) for shown, names in LAYERS.items()}
