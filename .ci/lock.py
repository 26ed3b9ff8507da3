"""Compile the lock files from pyproject.toml: `make lock`.

Each carries a fingerprint of the dependencies it was made from, so that a test can tell, without a network, whether
they still belong together. Versions that are locked stay as they are unless they no longer fit; `make lock UPGRADE=1`
takes the newest of everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {
    "requirements.txt": ["--extra", "app"],
    "requirements-run.txt": ["--group", "run", "--extra", "embedded", "--extra", "app"],
    "requirements-dev.txt": ["--group", "dev", "--extra", "embedded", "--extra", "app"],
}
OPTIONS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--quiet"]


def fingerprint() -> str:
    """Return the line that a lock file made from the present pyproject.toml carries."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    made_from = [project["requires-python"], project["dependencies"], project["optional-dependencies"]]
    text = json.dumps([*made_from, pyproject["dependency-groups"], LOCKS], sort_keys=True)
    return f"# Dependencies in pyproject.toml: {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def main() -> None:
    """Compile each lock file and put the fingerprint on top."""
    upgrade = ["--upgrade"] if os.environ.get("UPGRADE") else []
    for lock, wanted in LOCKS.items():
        command = [ROOT / ".venv/bin/uv", "pip", "compile", *OPTIONS, "--custom-compile-command", "make lock", *upgrade]
        subprocess.run([*command, "pyproject.toml", *wanted, "-o", lock], cwd=ROOT, check=True)  # noqa: S603  # our own words
        path = ROOT / lock
        path.write_text(f"{fingerprint()}\n{path.read_text()}")


if __name__ == "__main__":
    main()
