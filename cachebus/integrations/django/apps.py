"""What `INSTALLED_APPS` finds: the application that brings `manage.py cachebus`."""

from __future__ import annotations

from django.apps import AppConfig


class CachebusConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """Called `cachebus`: the last word of the package would be `django`."""

    name = "cachebus.integrations.django"
    label = "cachebus"
