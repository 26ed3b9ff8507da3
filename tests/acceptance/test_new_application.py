"""`cachebus new` and `cachebus dev`, as somebody uses them who has the wheel and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from cachebus.redis.embedded.loopback import free_port
from tests.docs.tutorial import Tutorial
from tests.support.browsing import PATIENCE_MS, PROGRAM
from tests.support.worker_program import ROOT, WorkerProcess, until


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the built wheel and its extras, nothing else; returns the folder of its programs."""
    made = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = made.glob("*.whl")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(made / "venv")], check=True)
    wanted = f"cachebus[worker,gateway,embedded] @ {wheel.as_uri()}"
    subprocess.run([*uv, "pip", "install", "--python", str(made / "venv/bin/python"), wanted], check=True)
    return made / "venv/bin"


@pytest.fixture
def shop(bare: Path, tmp_path: Path) -> Path:
    """What `cachebus new shop` writes."""
    run(bare / "cachebus", "new", "shop", cwd=tmp_path)
    return tmp_path / "shop"


def run(*command: Path | str, cwd: Path) -> str:
    """Run a program to its end, which must be a good one; returns what it printed."""
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    """What a shell has: no setting of ours, and nothing of this repository to import."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def free_ports() -> int:
    """Return a port that is free, with the next one."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port


def development(program: Path, shop: Path, *arguments: str) -> WorkerProcess:
    """`cachebus dev`, on free ports."""
    return WorkerProcess(
        {"PYTHONPATH": "", **environment()},
        "dev",
        "--port",
        str(free_ports()),
        *arguments,
        cwd=shop,
        program=[program],
    )


def signed_in(address: str, code: str) -> httpx.Client:
    """A browser that has followed the link: looks at the live page."""
    entered = httpx.post(f"{address}/page/api/enter", json={"code": code}, headers={"Origin": address}, timeout=30)
    assert entered.status_code == 200, entered.text
    return httpx.Client(
        base_url=address, headers={"Cookie": entered.headers["set-cookie"].partition(";")[0]}, timeout=30
    )


def test_a_new_application_runs_at_once(bare: Path, shop: Path) -> None:
    """Its test passes; an order that is placed is handled, and the page shows the new value; Ctrl-C ends it all."""
    assert "OK" in run(bare / "python", "-m", "unittest", cwd=shop)
    with development(bare / "cachebus", shop) as running:
        link = running.shows(r"live page\s+(http://localhost:\d+)/#enter=(\S+)")
        running.shows(r"worker\s+\| .*worker started")

        with signed_in(link[1], link[2]) as browser:

            def cached() -> Any:
                found = browser.get("/page/api/key?key=orders:7").json()["data"]["copies"]
                return [json.loads(copy["value"]) for copy in found]

            assert cached() == []
            run(bare / "python", "order.py", "7", "tea", cwd=shop)
            until(lambda: cached() == [["tea"]], "the order on the page")
            run(bare / "python", "order.py", "7", "milk", cwd=shop)
            until(lambda: cached() == [["tea", "milk"]], "the second order on the page")
            told = "/page/api/machine"
            until(lambda: browser.get(told).json()["data"]["backlog"]["feed"] == 2, "both broadcasts on the page")

        running.signal(signal.SIGINT)
        assert running.ended() == 0
        assert "stopping" in running.text


def test_a_changed_file_restarts_what_runs_it(bare: Path, shop: Path) -> None:
    """An edited handler is used by the next event; a broken one is said with file and line, and its mend is noticed."""
    with development(bare / "cachebus", shop) as running:
        running.shows(r"worker started")
        handlers = shop / "handlers.py"
        good = handlers.read_text()
        handlers.write_text(good + "\n\nbroken(\n")
        running.shows(r"handlers.py changed; restarting")
        running.shows(r"HANDLERS: handlers cannot be imported: SyntaxError: .*handlers.py:\d+")
        running.shows(r"worker\s+\| ended with exit code 2; restarting when a file changes")
        handlers.write_text(good)
        until(lambda: running.text.count("worker started") == 2, "the second start")
        assert running.stop() == 0


def test_the_application_s_own_command_runs_beside(bare: Path, shop: Path) -> None:
    """What follows `--` is started with the same server, and again when it ends."""
    code = "import os; print('my server:', os.environ['REDIS_URL'])"
    with development(bare / "cachebus", shop, "--", "python3", "-c", code) as running:
        running.shows(r"app\s+\| my server: redis://127.0.0.1:\d+")
        running.shows(r"app\s+\| ended with exit code 0; restarting in 1 s")
        assert running.stop() == 0


def test_a_second_ctrl_c_kills(bare: Path, shop: Path) -> None:
    """A command that ignores its signals does not keep the terminal: asked twice, everything is gone."""
    deaf = (
        "import signal, time; [signal.signal(each, signal.SIG_IGN) for each in (2, 15)]; print('deaf'); time.sleep(99)"
    )
    with development(bare / "cachebus", shop, "--", "python3", "-c", deaf) as running:
        running.shows(r"app\s+\| deaf")
        running.signal(signal.SIGINT)
        running.shows(r"stopping; Ctrl-C again to kill")
        running.signal(signal.SIGINT)
        assert running.ended() == 0


def test_a_taken_port_is_refused(bare: Path, shop: Path) -> None:
    """Somebody has the port already: said before anything is started, with exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [bare / "cachebus", "dev", "--port", port]
        done = subprocess.run(command, cwd=shop, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"PORT: {port} cannot be opened" in done.stderr


@pytest.mark.parametrize(("name", "said"), [("Shop!", "is not a good name"), ("shop", "is there already")])
def test_new_writes_over_nothing(bare: Path, shop: Path, name: str, said: str) -> None:
    """A name that cannot be one, or a folder that is there: exit code 2, and nothing is written."""
    before = sorted(shop.rglob("*"))
    command = [bare / "cachebus", "new", name]
    done = subprocess.run(command, cwd=shop.parent, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (2, True)
    assert sorted(shop.rglob("*")) == before


def test_with_a_web_side_the_page_follows(bare: Path, tmp_path: Path) -> None:
    """`--fastapi`: the page is there, hears of an order over its own address, and reads the new list."""
    run(sys.executable, "-m", "cachebus.worker", "new", "shop", "--fastapi", cwd=tmp_path)
    shop, port = tmp_path / "shop", free_ports()
    web = [sys.executable, "-m", "uvicorn", "web:app", "--port", str(port)]
    program = [sys.executable, "-m", "cachebus.worker"]
    arguments = ["dev", "--port", str(free_ports()), "--", *web]
    with WorkerProcess({"PYTHONPATH": str(ROOT), **environment()}, *arguments, cwd=shop, program=program) as running:
        running.shows(r"Uvicorn running on")
        running.shows(r"worker ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser:
            assert "<h1>Orders</h1>" in browser.get("/").text
            assert browser.get("/live/client.js").status_code == 200
            assert browser.get("/orders").json() == []
            with browser.stream("GET", "/live/events?topics=user:7") as live:
                lines = live.iter_lines()
                assert next(line for line in lines if line.startswith("data:"))
                browser.post("/orders/tea")
                heard = json.loads(next(line for line in lines if '"order.placed"' in line).removeprefix("data:"))
            after = {"Fresh-After": heard["fresh_after"]}
            assert browser.get("/orders", headers=after).json() == ["tea"]
        assert running.stop() == 0


def test_the_tutorial_does_what_it_says(bare: Path, tmp_path: Path) -> None:
    """Each block of the page, in order, in this environment and FastAPI; then two windows follow one sale."""
    install = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--python", str(bare / "python"), "fastapi"]
    subprocess.run(install, check=True)
    (tmp_path / ".venv").symlink_to(bare.parent)
    port = free_ports()
    with Tutorial(tmp_path, port, free_ports()).followed("wheel", "install"):
        if PROGRAM is None:
            return
        expect.set_options(timeout=PATIENCE_MS)
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
            one, other = (browser.new_page() for _ in range(2))
            for window in (one, other):
                window.goto(f"http://127.0.0.1:{port}")
                expect(window.locator("output")).to_have_text("3")
            one.get_by_role("button").click()
            for window in (one, other):
                expect(window.locator("output")).to_have_text("4")
            browser.close()


FRAMEWORKS = {
    "flask": {
        "test": ["-m", "unittest"],
        "cachebus": ["-m", "cachebus.worker"],
        "named": ["--cache", "web:cache"],
        "web": ["-m", "flask", "--app", "web", "run", "--port"],
    },
    "django": {
        "test": ["manage.py", "test"],
        "cachebus": ["manage.py", "cachebus"],
        "named": [],
        "web": ["manage.py", "runserver", "--noreload"],
    },
}


@pytest.mark.parametrize("name", list(FRAMEWORKS))
def test_with_plain_functions_the_worker_serves_them(name: str, tmp_path: Path) -> None:
    """`--flask`, `--django`: the tests pass, `dev` runs it all, an order is seen at once, the worker loads the list."""
    run(sys.executable, "-m", "cachebus.worker", "new", "shop", f"--{name}", cwd=tmp_path)
    shop, port, how = tmp_path / "shop", free_ports(), FRAMEWORKS[name]
    common = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment()}

    def python(*arguments: str, **more: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=shop, env={**common, **more}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "OK" in python(*how["test"], REDIS_ENABLED="false")
    if name == "django":
        python("manage.py", "migrate")
    arguments = ["dev", "--port", str(free_ports()), *how["named"], "--", sys.executable, *how["web"], str(port)]
    with WorkerProcess(common, *arguments, cwd=shop, program=[sys.executable, *how["cachebus"]]) as running:
        running.shows(r"worker ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser:
            until(lambda: answers(browser), lambda: f"the application; so far:\n{running.text}")
            assert browser.get("/orders/7").json() == []
            for items in (["tea"], ["tea", "milk"]):
                assert browser.post(f"/orders/7/{items[-1]}").status_code == 201
                until(lambda items=items: browser.get("/orders/7").json() == items, "the new list")
        assert running.stop() == 0


def answers(browser: httpx.Client) -> bool:
    """Return whether the application runs yet."""
    try:
        return browser.get("/orders/1").status_code == 200
    except httpx.TransportError:
        return False
