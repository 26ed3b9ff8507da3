"""What `cachebus new` writes."""

from __future__ import annotations

import re

import pytest

from cachebus.environment import variables
from cachebus.worker.commands.new import application
from cachebus.worker.settings import SECTIONS


@pytest.mark.parametrize("name", ["shop", "name-2"])
@pytest.mark.parametrize("framework", ["", "fastapi", "flask", "django"])
def test_the_environment_that_is_written_is_one_of_settings(name: str, framework: str) -> None:
    """Whoever uncomments a line of `.env.example` sets what it names: the application's name is only in its value."""
    written = dict(application(name, framework))
    set_there = dict(re.findall(r"^#(\w+)=(.*)$", written[".env.example"], re.MULTILINE))
    assert set_there["CACHE_NAMESPACE"] == name
    assert set(set_there) <= {variable.name for variable in variables(*SECTIONS)}
    assert written["README.md"].startswith(f"# {name}\n")


@pytest.mark.parametrize("framework", ["", "django"])
def test_platforms_get_the_python_of_the_image(framework: str) -> None:
    """Heroku and Railway read `.python-version`; the Dockerfile's image is of the same one."""
    written = dict(application("shop", framework))
    assert f"FROM python:{written['.python-version'].strip()}-slim" in written["Dockerfile"]
