"""Django: a cache backend, sessions, invalidation on commit, and `manage.py cachebus`.

CACHES = {"default": {"BACKEND": "cachebus.integrations.django.Cache", "LOCATION": os.environ["REDIS_URL"]}}
SESSION_ENGINE = "cachebus.integrations.django.sessions"
INSTALLED_APPS = [..., "cachebus.integrations.django"]
"""

from __future__ import annotations

from cachebus.integrations.django.backend import DjangoBackend as Cache
from cachebus.integrations.django.on_commit import invalidate_on_commit, invalidate_on_save

__all__ = ["Cache", "invalidate_on_commit", "invalidate_on_save"]
