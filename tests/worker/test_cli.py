"""The command line: what it understands, what it says about what it does not, and how little it loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cachebus
from cachebus.worker.cli import main
from cachebus.worker.commands.dev import shown

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    """`cachebus --version` prints what `cachebus.__version__` is."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cachebus {cachebus.__version__}\n"


def test_options_name_the_application(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--cache` wins over CACHE, CACHE over the names of a boot page."""
    monkeypatch.setenv("CACHE", "of.environment:cache")
    monkeypatch.delenv("HANDLERS", raising=False)
    names = {"CACHE": "of.page:cache", "HANDLERS": "of.page"}
    assert main(["config", "--cache", "shop.views:cache"], defaults=names) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert (rows["CACHE"], rows["HANDLERS"]) == ("shop.views:cache", "of.page")


@pytest.mark.parametrize("arguments", [["--help"], ["worker", "--help"], ["--version"], ["check", "--data-dir", "/no"]])
def test_help_starts_nothing_and_imports_little(arguments: list[str]) -> None:
    """Neither help nor `check` loads the driver, the event loop, the cache or the worker's packages."""
    program = (
        f"import sys; sys.argv = ['cachebus', *{arguments!r}]\n"
        "from cachebus.worker.cli import script\n"
        "try: script()\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncio', 'anyio', 'cachebus.cache', 'redis', 'sqlalchemy', 'apscheduler', 'structlog'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path) -> None:
    """Without what a command needs: which package, and the pip command that installs it; exit code 2."""
    program = (
        "import sys; sys.modules[{package!r}] = None\n"  # as if it were not installed
        "from cachebus.worker.cli import main\n"
        "sys.exit(main([{command!r}]))"
    )
    for command, package, extra in (("worker", "structlog", "worker"), ("gateway", "uvicorn", "gateway")):
        text = program.format(command=command, package=package)
        done = subprocess.run([sys.executable, "-c", text], check=False, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert f"{package} is not installed: pip install 'cachebus[{extra}]'" in done.stderr


@pytest.mark.parametrize("port", ["0", "-1", "65535", "99999"])
def test_dev_refuses_a_port_that_leaves_none_for_the_worker_s_pages(
    port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The gateway has the port, the worker the next one: both must exist. Nothing is started."""
    monkeypatch.chdir(tmp_path)
    assert main(["dev", f"--port={port}"]) == 2
    assert f"PORT: {port} must be from 1 to 65534" in capsys.readouterr().err


def test_dev_shows_no_escape_of_a_payload() -> None:
    """What a program prints may hold what others wrote: it moves no cursor. Colours and tabs are as they were."""
    line = "\x1b[32mINFO\x1b[0m\tevent \x1b]0;title\x07\x1b[2J\rworker | all is well\u202e \xe9"
    assert shown(line) == ("\x1b[32mINFO\x1b[0m\tevent \\x1b]0;title\\x07\\x1b[2J\\rworker | all is well\\u202e \xe9")


@pytest.mark.parametrize("url", ["cache.example.com", "ftp://cache.example.com", "localhost:8080"])
def test_a_link_that_no_browser_opens_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No code is made for it."""
    assert main(["page-link", url]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"page-link: {url!r} is not the page's address; write it like https://cache.example.com" in shown.err


@pytest.mark.parametrize("command", ["worker", "gateway"])
@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_while_a_program_imports_ends_it_cleanly(command: str, signal: str, tmp_path: Path) -> None:
    """A deploy may take a process back in its first tenths of a second: nothing has begun, so it ends with 0."""
    slow = f"import os, signal, time; os.kill(os.getpid(), signal.{signal}); time.sleep(30)"
    for package in ("structlog", "msgspec"):  # whichever the program imports first
        (tmp_path / f"{package}.py").write_text(slow)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "CACHE": "shop.views:cache"}
    program = [sys.executable, "-m", "cachebus.worker", command]
    done = subprocess.run(program, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"stopped by {signal} before anything was started\n"
