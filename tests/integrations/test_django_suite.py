"""Django's own tests of cache backends and session engines, from the source distribution of the installed version."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest

from cachebus.testing.server import PrivateServer
from tests.support.worker_program import ROOT

NEED_PICKLE = {
    "test_add_fail_on_pickleerror",
    "test_cache_read_for_model_instance",
    "test_cache_read_for_model_instance_with_deferred",
    "test_cache_write_for_model_instance_with_deferred",
    "test_cache_write_unpicklable_object",
    "test_data_types",
    "test_set_fail_on_pickleerror",
}
"""Store a model, a query set, a response, a function or a class."""
NEED_CULLING = {"test_cull", "test_cull_delete_when_store_empty", "test_zero_cull"}
"""Count what a backend with MAX_ENTRIES leaves; Django's own Redis backend is excused from them too."""
CACHE_TESTS, SESSION_TESTS = 40, 60
"""At least so many of Django's, whatever its version: a suite that is not found proves nothing."""


@pytest.fixture(scope="session")
def djangos_tests() -> Path:
    """The folder of Django's tests, which its wheel does not have; fetched once for a version."""
    version = django.get_version()
    kept = Path(sys.prefix) / f"django-{version}"
    if not (kept / "tests").exists():
        run = [sys.executable, "-m", "uv", "--quiet", "tool", "run", "--python", sys.executable]
        pip = [*run, "pip", "--quiet", "download", "--no-deps"]
        subprocess.run([*pip, "--no-binary", "Django", f"Django=={version}", "--dest", str(kept)], check=True)
        with tarfile.open(kept / f"django-{version}.tar.gz") as source:
            folders = (["tests", "cache"], ["tests", "sessions_tests"])
            wanted = [each for each in source if each.name.split("/")[1:3] in folders]
            for each in wanted:
                each.name = each.name.partition("/")[2]
            source.extractall(kept, wanted, filter="data")
    return kept / "tests"


def test_django_s_own_tests_pass(djangos_tests: Path, server: PrivateServer, namespace: str) -> None:
    """Every test of a backend that needs no pickle, and every test of a session engine; the others are refused."""
    suite = [sys.executable, "-m", "tests.support.django_suite", str(djangos_tests), server.url, namespace]
    done = subprocess.run(suite, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    became = json.loads(done.stdout)
    caches = {name.partition(".")[2]: why for name, why in became.items() if name.startswith("Caches.")}
    sessions = {name: why for name, why in became.items() if name.startswith("Sessions.")}
    assert len(caches) >= CACHE_TESTS
    assert len(sessions) >= SESSION_TESTS
    assert {name for name, why in sessions.items() if why} == set()
    assert {name for name, why in caches.items() if why} == NEED_PICKLE | NEED_CULLING, done.stderr
    for name in NEED_PICKLE:
        assert "the value cannot be stored" in caches[name]
        assert "Nothing is pickled here: store `.values()`" in caches[name]
