"""`dev`: server, worker, gateway and the application's own command in one terminal, restarted when a file changes."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from cachebus.cache.settings import CacheSettings
from cachebus.errors import CannotStart, ServerError
from cachebus.process.child import Child, Show
from cachebus.process.listening import LOOPBACK, refuse_taken
from cachebus.process.masking import mask_urls
from cachebus.redis.embedded.embedded import EmbeddedServer
from cachebus.worker.commands.output import printable
from cachebus.worker.commands.page_link import link
from cachebus.worker.settings import WorkerSettings

GATEWAY_PORT = 8080
LAST_PORT = 65535
LOOK_S = 0.5
"""How often files are looked at, and ports tried."""
NOT_WATCHED = frozenset({"__pycache__", "node_modules", "venv", "site-packages"})
"""Folders whose files are not the application's; nor are those that begin with a dot."""
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_KEPT = re.compile(rf"({_COLOUR.pattern}|\t)")
COLOURS = {"dev": 35, "gateway": 36, "worker": 33, "app": 32}


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run until Ctrl-C or SIGTERM; returns the exit code. Raises: CannotStart, before anything is started."""
    settings = WorkerSettings.from_environment(environment)
    if not settings.cache.redis_enabled:
        raise CannotStart(["REDIS_ENABLED: is false, and these processes share a server; unset it"])
    port = (settings.process.port or GATEWAY_PORT) if asked.port is None else asked.port
    if not 0 < port < LAST_PORT:
        raise CannotStart([f"PORT: {port} must be from 1 to {LAST_PORT - 1}: the worker's pages are on the next one"])
    for each in (port, port + 1):
        refuse_taken(LOOPBACK, each)
    with contextlib.ExitStack() as stack:
        url = settings.cache.url or stack.enter_context(EmbeddedServer.start()).url
        common = {"LOG_FORMAT": "console", **environment, "REDIS_URL": url, "PYTHONUNBUFFERED": "1"}
        common.pop("REDIS_PRIVATE_URL", None)
        anyio.run(_run, _children(common, port, asked.program), common, port)
    return 0


def _children(common: Mapping[str, str], port: int, program: Sequence[str]) -> list[Child]:
    show = _printer(sys.stdout.isatty())
    cachebus = (sys.executable, "-m", "cachebus.worker")
    gateway = {**common, "HOST": LOOPBACK, "PORT": str(port)}
    worker = {**common, "HOST": LOOPBACK, "PORT": str(port + 1)}
    children = [
        Child("gateway", [*cachebus, "gateway"], gateway, show),
        Child("worker", [*cachebus, "worker"], worker, show, reloads=True),
    ]
    if program:
        own = {name: text for name, text in common.items() if name not in {"HOST", "PORT"}}
        children.append(Child("app", program, own, show, reloads=True))
    return children


async def _run(children: Sequence[Child], environment: Mapping[str, str], port: int) -> None:
    show = _printer(sys.stdout.isatty())
    async with anyio.create_task_group() as beside:
        beside.start_soon(_stop, children, show)
        beside.start_soon(_restart, children, show)
        beside.start_soon(_links, environment, port, show)
        async with anyio.create_task_group() as running:
            for child in children:
                running.start_soon(child.keep)
        beside.cancel_scope.cancel()


async def _stop(children: Sequence[Child], show: Show) -> None:
    """Pass the first signal on as a request to end, the second as a kill."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        asked = False
        async for _ in received:
            show("dev", "killing what still runs" if asked else "stopping; Ctrl-C again to kill")
            for child in children:
                (child.kill if asked else child.stop)()
            asked = True


async def _restart(children: Sequence[Child], show: Show) -> None:
    """Restart what runs the application's files when one of them changes."""
    seen = await anyio.to_thread.run_sync(_changes, Path.cwd())
    while True:
        await anyio.sleep(LOOK_S)
        now = await anyio.to_thread.run_sync(_changes, Path.cwd())
        if now != seen:
            changed = sorted(str(path.relative_to(Path.cwd())) for path, _ in now.items() ^ seen.items())
            show("dev", f"{changed[0]} changed; restarting")
            for child in children:
                if child.reloads:
                    child.restart()
        seen = now


def _changes(folder: Path) -> dict[Path, int]:
    """Return when each Python file below *folder* last changed."""
    times = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each not in NOT_WATCHED]
        for name in names:
            if name.endswith(".py"):
                with contextlib.suppress(FileNotFoundError):  # an editor replaces files
                    times[Path(at, name)] = Path(at, name).stat().st_mtime_ns
    return times


async def _links(environment: Mapping[str, str], port: int, show: Show) -> None:
    """Print where to look, once somebody answers there."""
    await _listening(port)
    show("dev", f"gateway    http://localhost:{port}/client.js")
    await _listening(port + 1)
    page = f"http://localhost:{port + 1}"
    try:
        show("dev", f"live page  {await link(CacheSettings.from_environment(environment), page, getpass.getuser())}")
    except ServerError as unavailable:
        show("dev", f"redis unavailable: {mask_urls(str(unavailable))}")


async def _listening(port: int) -> None:
    while True:
        try:
            await (await anyio.connect_tcp(LOOPBACK, port)).aclose()
        except OSError:
            await anyio.sleep(LOOK_S)
        else:
            return


def shown(line: str) -> str:
    """Return a line of a program without what would move the cursor: others wrote part of it. Colours and tabs stay."""
    return "".join(part if part == "\t" or _COLOUR.fullmatch(part) else printable(part) for part in _KEPT.split(line))


def _printer(colours: bool) -> Show:
    def show(name: str, line: str) -> None:
        prefix = f"{name:<7} | "
        sys.stdout.write((f"\x1b[{COLOURS[name]}m{prefix}\x1b[0m" if colours else prefix) + shown(line) + "\n")
        sys.stdout.flush()

    return show
