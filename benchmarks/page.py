"""docs/reference/benchmarks.md: each benchmark writes the section between its two marks, and its pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from benchmarks.turns import Cost

PAGE = Path("docs/reference/benchmarks.md")
PICTURES = Path("docs/images")
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 800, 340, 70, 18, 8, 34
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600}.o{fill:#0969da}.c{fill:#8c959f}"
    ".s{fill:#bf8700}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#58a6ff}.c{fill:#6e7681}"
    ".s{fill:#d29922}}"
)


def wrapped(text: str) -> str:
    """Return text in lines of the width that the documentation has."""
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def put(name: str, lines: Sequence[str]) -> None:
    """Replace the section called *name*; a new one comes last."""
    begins, ends = f"<!-- {name}: written by make bench -->", f"<!-- end of {name} -->"
    text = PAGE.read_text()
    if begins not in text:
        text = f"{text.rstrip()}\n\n{begins}\n{ends}\n"
    before, _, rest = text.partition(begins)
    _, _, after = rest.partition(ends)
    body = "\n".join(lines).strip()
    PAGE.write_text(f"{before}{begins}\n\n{body}\n\n{ends}{after}")
    print(f"  section {name!r} of {PAGE} written")


def draw(name: str, title: str, costs: Mapping[str, Cost], ours: str) -> None:
    """Draw bars of CPU time, client then server; readable on a light and on a dark page."""
    most = max(cost.cpu_us for cost in costs.values())
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + len(costs) * (BAR + GAP) + 24
    shapes = [f'<text class="t" x="4" y="18">{escape(title)}, CPU time in µs</text>']
    for row, (label, cost) in enumerate(costs.items()):
        top = TOP + row * (BAR + GAP)
        client, server = max(1.0, cost.client_us * scale), cost.server_us * scale
        kind = "o" if label == ours or "cachebus" in label else "c"
        figure = f"{cost.cpu_us:.2f}" if cost.cpu_us < 10 else f"{cost.cpu_us:,.0f}"
        shapes += [
            f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{client:.1f}" height="{BAR}"/>',
            f'<rect class="s" x="{LEFT + client:.1f}" y="{top}" width="{server:.1f}" height="{BAR}"/>',
            f'<text x="{LEFT + client + server + 6:.1f}" y="{top + 13}">{figure}</text>',
        ]
    at = height - 8
    shapes += [
        f'<rect class="o" x="{LEFT}" y="{at - 10}" width="10" height="10"/><text x="{LEFT + 15}" y="{at}">ours</text>',
        f'<rect class="c" x="{LEFT + 60}" y="{at - 10}" width="10" height="10"/>'
        f'<text x="{LEFT + 75}" y="{at}">others</text>',
        f'<rect class="s" x="{LEFT + 130}" y="{at - 10}" width="10" height="10"/>'
        f'<text x="{LEFT + 145}" y="{at}">the server\'s part</text>',
    ]
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{STYLE}</style>{"".join(shapes)}</svg>\n'
    )
