"""The status of `make run` on the terminal: one screen of 80 columns, or a plain line a while where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.figures import Figures, percentile

WIDTH = 80
OTHER_LINES = 13
"""Lines beside the jobs and the links; what is left of the terminal's height shows jobs."""
LINE_EVERY_S = 5.0
"""Without a terminal a line is written this often."""
GOOD_HIT_RATE = 0.8
"""What the strategy aims at."""


def ms(value: float | None) -> str:
    """Return milliseconds as people read them."""
    return "-" if value is None else f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def until(us: int) -> str:
    """Return a time to come in the unit that leaves two digits or so."""
    seconds = max(0, us) / 1e6
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


class Screen:
    """Shows the figures until it is closed."""

    def __init__(self, figures: Figures, console: Console | None = None) -> None:
        self.figures = figures
        self.links: list[tuple[str, str]] = []
        """(what it is, where it is), of what listens already."""
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._line_at = 0.0

    @property
    def drawn(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._console.is_terminal

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw in place while this is entered; the last state stays on the terminal."""
        if not self.drawn:
            yield
            return
        with Live(console=self._console, auto_refresh=False, vertical_overflow="crop") as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """Write a line above the screen."""
        self._console.print(text, markup=False)

    def update(self) -> None:
        """Draw the figures as they are now."""
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
        elif not self.drawn and time.monotonic() - self._line_at >= LINE_EVERY_S:
            self._line_at = time.monotonic()
            self._console.print(self.line(), markup=False, soft_wrap=True)

    def line(self) -> str:
        """Return the figures in one line, for a log."""
        figures = self.figures
        events_s, reads_s = figures.rates()
        return (
            f"{time.monotonic() - figures.began:4.0f} s  workers {self._workers()}  "
            f"events {figures.published:,} ({events_s:.1f}/s)  "
            f"event to fresh p50 {ms(percentile(figures.fresh, 0.5))}  "
            f"reads {figures.total('reads'):,} ({reads_s:.0f}/s)  hit rate {figures.hit_rate:.1%}  "
            f"stale {figures.total('stale')}"
        )

    def render(self) -> RenderableType:
        """Return the screen."""
        parts: list[RenderableType] = [self._title(), _rule(), self._numbers()]
        room = self._console.height - OTHER_LINES - len(self.links)
        jobs = self.figures.stats.jobs if self.figures.stats is not None else ()
        if jobs and room > 1:
            parts += [_rule(), self._jobs(jobs, room)]
        parts += [_rule(), *self._what_next()]
        return Group(*[_narrow(part) for part in parts])

    def _title(self) -> Text:
        seconds = int(time.monotonic() - self.figures.began)
        state = self._workers()
        return Text.assemble(
            ("cachebus", "bold"),
            f"   running {seconds // 60}:{seconds % 60:02}   worker ",
            (state, "green" if state == "ready" else "yellow"),
            f"   applications {len(self.figures.apps)}",
        )

    def _numbers(self) -> Table:
        figures = self.figures
        events_s, reads_s = figures.rates()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_row(
            "events",
            f"{figures.published:,} published, {events_s:.1f}/s",
            f"{figures.total('plain'):,} plain PUBLISH, {figures.total('outbox'):,} outbox",
        )
        table.add_row("broadcasts", f"{figures.broadcasts:,} followed", _bad(figures.total("missing"), "missing"))
        table.add_row(
            "event to fresh",
            f"p50 {ms(percentile(figures.fresh, 0.5))}, p95 {ms(percentile(figures.fresh, 0.95))}",
            f"elsewhere p50 {ms(percentile(figures.elsewhere, 0.5))}",
        )
        rate = figures.hit_rate
        table.add_row(
            "reads",
            f"{figures.total('reads'):,}, {reads_s:.0f}/s",
            Text(f"hit rate {rate:.1%}", "green" if rate > GOOD_HIT_RATE else "yellow"),
        )
        table.add_row(
            "answered by",
            f"memory {figures.share('l1'):.1%}, Redis {figures.share('l2'):.1%}, loads {figures.share('loads'):.1%}",
            _bad(figures.total("stale"), "stale"),
        )
        if figures.stats is not None:
            table.add_row(
                "waiting",
                f"{figures.waiting:,} events, {figures.stats.backlog.refreshes:,} refreshes",
                _bad(figures.dead_letters or 0, "dead letters"),
            )
        lag = max((app.get("lag_ms") or 0.0 for app in figures.apps.values()), default=0.0)
        table.add_row("journal", f"last heard {lag:.0f} ms ago", "")
        return table

    def _jobs(self, jobs: Sequence[Any], room: int) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        for width in (28, 8, 8, WIDTH - 28 - 8 - 8 - 4 * 2):
            table.add_column(no_wrap=True, overflow="ellipsis", width=width)
        table.add_row("job", "state", "next", "progress", style="dim")
        soonest = sorted(jobs, key=lambda job: (job.state != "running", job.next_us or math.inf))
        shown = soonest[: room - 1] if len(jobs) < room else soonest[: room - 2]
        for job in shown:
            due = "-" if job.next_us is None else f"in {until(job.next_us - self.figures.now_us)}"
            table.add_row(job.name.partition(".")[2], job.state, due, job.progress)
        if len(shown) < len(jobs):
            table.add_row(f"{len(jobs) - len(shown)} more", "", "", "")
        return table

    def _what_next(self) -> Iterator[Text]:
        for what, where in self.links:
            yield Text.assemble((f"{what:<16}", "dim"), (where, f"link {where} cyan"))
        yield Text("Ctrl-C stops everything", "dim")

    def _workers(self) -> str:
        stats = self.figures.stats
        return ", ".join(worker.state for worker in stats.workers) or "none" if stats is not None else "starting"


def _bad(count: int, what: str) -> Text:
    """Return a count that ought to be 0, in red where it is not."""
    return Text(f"{count:,} {what}", "bold red" if count else "")


def _rule() -> Text:
    return Text("─" * WIDTH, "dim")


def _narrow(part: RenderableType) -> RenderableType:
    """Keep a part within WIDTH columns: a wide screen is harder to read across."""
    grid = Table.grid()
    grid.add_column(max_width=WIDTH, no_wrap=True, overflow="ellipsis")
    grid.add_row(part)
    return grid
