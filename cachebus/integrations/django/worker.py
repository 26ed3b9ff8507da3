"""What a worker imports first: sets Django up, and names the cache of `CACHES["default"]`.

`manage.py cachebus worker` names this module; without it: DJANGO_SETTINGS_MODULE=shop.settings, and
`cachebus worker --cache cachebus.integrations.django.worker:cache`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import django
from django.apps import apps

from cachebus.integrations.django.facade import cache_of

if not apps.ready:
    django.setup()

cache = cache_of("default")


def modules_named(word: str) -> Iterator[str]:
    """Yield the module *word* of each installed application that has one."""
    for config in apps.get_app_configs():
        name = f"{config.name}.{word}"
        if importlib.util.find_spec(name) is not None:
            yield name
