"""Build the documentation as it is published, `make site`: build/versions/<version>/, beside the versions built before.

The site's own selector reads `versions.json`, which lists what is there; the newest is where the first page leads.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ROOT / "build/versions"


def main() -> None:
    """Build this version, strictly, and list what is there."""
    program = Path(sys.executable).with_name("zensical")
    subprocess.run([program, "build", "--strict", "--clean"], cwd=ROOT, check=True)  # noqa: S603  # our own words
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "cachebus/__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("cachebus/__init__.py: no __version__")
    target = VERSIONS / found[1]
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "build/site", target)
    names = sorted((each.name for each in VERSIONS.iterdir() if each.is_dir()), key=_order, reverse=True)
    listed = [{"version": name, "title": name, "aliases": ["latest"] if name == names[0] else []} for name in names]
    (VERSIONS / "versions.json").write_text(json.dumps(listed, indent=2) + "\n")
    first = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={names[0]}/index.html">'
    (VERSIONS / "index.html").write_text(f'{first}<a href="{names[0]}/index.html">cachebus {names[0]}</a>\n')


def _order(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


if __name__ == "__main__":
    main()
