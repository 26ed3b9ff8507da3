"""The tutorial, done by a program from its page: `python -m tests.docs.tutorial` does it in a bare environment, timed.

A block with a file's name is that file. A block of bash is run where it stands; "first terminal" runs until the end of
the page. A block of text is what the block before it prints, … for whatever is not the same each time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.worker_program import ROOT, WorkerProcess, until

PAGE = ROOT / "docs/tutorial/index.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
WEB_PORT, GATEWAY_PORT = 8000, 8080


class Step(NamedTuple):
    """A block of the page."""

    kind: str
    title: str
    text: str


class Tutorial:
    """A folder in which the page is followed, and the ports that are used in place of the page's."""

    def __init__(self, folder: Path, web_port: int = WEB_PORT, gateway_port: int = GATEWAY_PORT) -> None:
        self._folder, self._web_port, self._gateway_port = folder, web_port, gateway_port
        self._shell = {name: os.environ[name] for name in ("PATH", "HOME", "WHEEL") if name in os.environ}
        self._command = ""
        self._printed = ""
        self._terminal: WorkerProcess | None = None
        self._asked_terminal = False

    @contextmanager
    def followed(self, *skipped: str) -> Iterator[None]:
        """Do each step but those of these titles; what was started runs while this block does."""
        with ExitStack() as stack:
            for step in steps():
                if step.title not in skipped:
                    self._do(step, stack)
            yield

    def _do(self, step: Step, stack: ExitStack) -> None:
        text = step.text.replace(str(WEB_PORT), str(self._web_port))
        if step.kind == "python":
            (self._folder / step.title).write_text(text)
        elif step.kind == "text":
            for line in text.splitlines():
                self._expect(re.escape(line).replace("…", ".*"))
        elif step.title == "first terminal":
            program = text.strip().replace("dev --", f"dev --port {self._gateway_port} --").split()
            environment = {"PYTHONPATH": "", "LOG_FORMAT": "console", **self._shell}
            self._terminal = stack.enter_context(WorkerProcess(environment, cwd=self._folder, program=program))
            self._asked_terminal = True
        else:
            self._command, self._asked_terminal = text, False
            self._run()

    def _run(self) -> None:
        command = ["bash", "-euc", self._command]
        done = subprocess.run(command, cwd=self._folder, env=self._shell, capture_output=True, text=True, check=False)
        self._printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{self._command}\n{self._printed}"

    def _expect(self, pattern: str) -> None:
        if self._asked_terminal and self._terminal is not None:
            self._terminal.shows(pattern)
        elif not re.search(pattern, self._printed):
            until(lambda: self._run() or re.search(pattern, self._printed), f"{pattern!r} of {self._command}")  # type: ignore[func-returns-value] # asked again: the event is on its way


def steps() -> list[Step]:
    """Return the blocks of the page, in order."""
    return [Step(*found) for found in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


def main() -> None:
    """Build the wheel, follow the page in an empty folder with nothing but Python, and say how long that took."""
    with tempfile.TemporaryDirectory() as made:
        began = time.monotonic()
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        (wheel,) = Path(made).glob("*.whl")
        os.environ["WHEEL"] = str(wheel)
        folder = Path(made, "sales")
        folder.mkdir()
        with Tutorial(folder).followed("wheel"):
            sys.stdout.write(f"the tutorial took {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
