"""The page about Django: its blocks are a project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from cachebus.testing.server import PrivateServer

ROOT = Path(__file__).parents[2]
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""
REST = """
SECRET_KEY = "of tests"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""


def test_the_page_is_a_project(server: PrivateServer, namespace: str, tmp_path: Path) -> None:
    """Its settings are settings, its other blocks run in the shell that they make; `manage.py cachebus` is there."""
    page = (ROOT / "docs/howto/use-from-django.md").read_text()
    first, *others = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "settings.py").write_text(first + REST)
    (tmp_path / "manage.py").write_text(MANAGE)
    calls = "\nclose_all()\nassert log_out_everywhere(7) == 0\ncache.facade.close()\n"
    environment = {**os.environ, "REDIS_URL": server.url, "CACHE_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)}

    def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    shell = manage("shell", "--no-imports", "-c", "\n".join(others) + calls)
    assert shell.returncode == 0, shell.stderr
    config = manage("cachebus", "config")
    assert "cachebus.integrations.django.worker:cache" in config.stdout, config.stdout + config.stderr
    another = first.replace("cachebus.integrations.django.Cache", "django.core.cache.backends.locmem.LocMemCache")
    (tmp_path / "settings.py").write_text(another + REST)
    refused = manage("cachebus", "worker")
    assert refused.returncode != 0
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert "CACHES['default'] is django.core.cache.backends.locmem.LocMemCache" in refused.stderr
