"""Figures as the page's script writes them, in Node: three digits and a unit, and one of something is no plural."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.lacking import program

WORDS = Path(__file__).parents[2] / "cachebus/monitoring/page/static/words.js"
PROGRAM = """
const { count, number, span, bytes } = await import(process.argv[1]);
console.log(JSON.stringify([
  [0, 1, 9999, 9999.6, 12_345, 999_499, 999_960, 999_999_999, 1.5e9].map(count),
  [1, 0, 2, 10_000].map((many) => number(many, "worker")),
  [1, 2].map((many) => number(many, "process", "processes")),
  [0, 0.03, 0.06, 999.6, 59_999, 119_999, 120_000].map(span),
  [999, 999_499, 999_501, 9.99e8].map(bytes),
]));
"""


def test_figures_just_under_a_power_keep_three_digits() -> None:
    """What rounds up to the next unit is written in it."""
    command = [program("node"), "--input-type=module", "-e", PROGRAM, WORDS.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["0", "1", "9,999", "10k", "12.3k", "999k", "1M", "1G", "1.50G"],
        ["1 worker", "0 workers", "2 workers", "10k workers"],
        ["1 process", "2 processes"],
        ["0 ms", "< 0.1 ms", "0.1 ms", "1.0 s", "60 s", "120 s", "2 min"],
        ["999 B", "999 kB", "1 MB", "999 MB"],
    ]
