"""The files that platforms read: what they copy, install and start is a worker that works and stops as it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus.testing.server import PrivateServer
from cachebus.worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HEALTHY_S = 120
"""Ends a hang; on a busy machine a new environment compiles what it imports for half a minute."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the Dockerfile makes: a directory with what it copies, and an environment with what it installs."""
    made = tmp_path_factory.mktemp("image")
    for source, target in re.findall(r"^COPY (\w+) (\w+)$", DOCKERFILE, re.MULTILINE):
        shutil.copytree(ROOT / source, made / target, ignore=shutil.ignore_patterns("__pycache__"))
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, made / "venv"], check=True)
    install = [*uv, "pip", "install", "--python", made / "venv/bin/python"]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements.txt"], check=True)
    yield made
    shutil.rmtree(made)


def command(instruction: str) -> list[str]:
    """Return the words of an instruction in exec form, which has no shell between the platform and the program."""
    words = json.loads(DOCKERFILE.rsplit(instruction, 1)[1].splitlines()[0])
    assert all(isinstance(word, str) for word in words)
    return list(words)


def environment(image: Path, server: PrivateServer, namespace: str) -> dict[str, str]:
    """Return what a platform sets."""
    return {
        "PATH": f"{image}/venv/bin:{os.environ['PATH']}",
        "REDIS_URL": server.url,
        "CACHE_NAMESPACE": namespace,
        "DATA_DIR": f"{image}/data",
        "DATABASE_URL": f"sqlite+aiosqlite:///{image}/app.db",
    }


def test_the_image_runs_is_healthy_and_ends_on_its_stop_signal(
    image: Path, server: PrivateServer, namespace: str
) -> None:
    """With nothing but what is copied and locked: healthy by its own check, exit code 0 after the stop signal."""
    env = environment(image, server, namespace)
    with subprocess.Popen(command("\nCMD "), cwd=image, env=env, stdout=subprocess.PIPE) as worker:
        try:
            check = command("s CMD ")
            deadline = time.monotonic() + HEALTHY_S
            while subprocess.run(check, cwd=image, env=env, check=False).returncode:
                assert time.monotonic() < deadline, "never healthy"
            worker.send_signal(getattr(signal, re.findall(r"^STOPSIGNAL (\w+)$", DOCKERFILE, re.MULTILINE)[0]))
            assert worker.wait(30) == 0
        finally:
            worker.kill()


def test_the_image_runs_as_nobody_important() -> None:
    """The last USER is not root, and what it may write to is its own."""
    user = re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert user != "root"
    assert re.search(rf"useradd --system --uid [1-9]\d+ {user} && install -d -o {user} /data", DOCKERFILE)


def test_all_that_is_copied_is_sent_to_the_builder() -> None:
    """The ignore file lets exactly those through that the Dockerfile copies."""
    copied = set(re.findall(r"^COPY ([\w.]+) ", DOCKERFILE, re.MULTILINE))
    let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == let_through


def test_heroku_is_told_of_processes_and_settings_that_exist() -> None:
    """Each process in app.json stands in the Procfile, each setting is one the worker reads."""
    manifest = json.loads((ROOT / "app.json").read_text())
    processes = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert set(manifest["formation"]) <= set(processes)
    assert not WorkerSettings.from_environment(
        {name: entry["value"] for name, entry in manifest["env"].items()}
    ).unknown
