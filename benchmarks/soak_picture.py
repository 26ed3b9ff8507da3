"""The soak as a picture: memory of every process over time. `python -m benchmarks.soak_picture`, after a soak."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from benchmarks.page import PICTURES, STYLE
from benchmarks.soak import FOLDER

WIDTH, HEIGHT = 800, 360
LEFT, RIGHT, TOP, BOTTOM = 48, 190, 34, 34
POINTS = 300
LINES = {
    "worker_rss": ("worker", "#0969da"),
    "reader_rss": ("reading process", "#bf8700"),
    "publisher_rss": ("publishing process", "#8250df"),
    "server_mb": ("server, used_memory", "#1a7f37"),
}


def drawn(samples: list[dict[str, float]]) -> str:
    """Return the SVG: megabytes from zero up, over minutes; each line is named at its end."""
    minutes = samples[-1]["at_s"] / 60
    most = max(sample[name] for sample in samples for name in LINES if not math.isnan(sample[name]))
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000) if most / step <= 6)
    top = math.ceil(most / step) * step

    def x(at_s: float) -> float:
        return LEFT + at_s / 60 / minutes * (WIDTH - LEFT - RIGHT)

    def y(megabytes: float) -> float:
        return HEIGHT - BOTTOM - megabytes / top * (HEIGHT - TOP - BOTTOM)

    shapes = ['<text class="t" x="4" y="18">Memory while it runs, MB</text>']
    for level in range(0, top + 1, step):
        shapes.append(f'<path class="g" d="M{LEFT} {y(level):.1f}H{WIDTH - RIGHT}"/>')
        shapes.append(f'<text x="{LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{level}</text>')
    shapes += [
        f'<text x="{x(minute * 60):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{minute} min</text>'
        for minute in range(0, int(minutes) + 1, 15 if minutes > 60 else 5)
    ]
    named_at: list[float] = []
    for name, (what, color) in sorted(LINES.items(), key=lambda line: -samples[-1][line[0]]):
        points = [(x(sample["at_s"]), y(sample[name])) for sample in samples if not math.isnan(sample[name])]
        line = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        at = max(points[-1][1] + 4, named_at[-1] + 15 if named_at else 0)
        named_at.append(at)
        shapes.append(f'<text x="{points[-1][0] + 6:.1f}" y="{at:.1f}" style="fill:{color}">{what}</text>')
    style = STYLE + ".g{stroke:#8c959f;stroke-width:.5;opacity:.5}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img"><title>Memory of each process during the soak</title><style>{style}</style>'
        f"{''.join(shapes)}</svg>\n"
    )


def draw(kept: Path, picture: Path) -> None:
    """Draw what a soak has kept."""
    with kept.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    every = max(1, len(rows) // POINTS)
    samples = [{name: float(value) for name, value in row.items()} for row in rows[::every]]
    picture.write_text(drawn(samples), encoding="utf-8")


if __name__ == "__main__":
    draw(FOLDER / "soak.csv", PICTURES / "soak-memory.svg")
