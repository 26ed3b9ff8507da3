"""Django in one file: cache, sessions, invalidation after COMMIT. `python -m examples.django_app runserver`."""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    CACHES={"default": {"BACKEND": "cachebus.integrations.django.Cache"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SHOP_FILE", "shop.db")}},
    INSTALLED_APPS=["cachebus.integrations.django"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for development only"),
    SESSION_ENGINE="cachebus.integrations.django.sessions",
)
django.setup()

from django.core.cache import cache  # noqa: E402
from django.core.management import execute_from_command_line  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from cachebus.integrations.django import invalidate_on_commit  # noqa: E402


@cache.view("django:notes:{author}", ttl="5m", tags=["author:{author}"])
def notes(author: str) -> list[str]:
    """Return what somebody has written."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS notes (author TEXT, text TEXT)")
        cursor.execute("SELECT text FROM notes WHERE author = %s ORDER BY rowid", [author])
        return [text for (text,) in cursor.fetchall()]


def show(request: HttpRequest, author: str) -> JsonResponse:
    """Answer with the notes, and how often this visitor has looked."""
    request.session["looks"] = request.session.get("looks", 0) + 1
    return JsonResponse({"notes": notes(author), "looks": request.session["looks"]})


def write(_request: HttpRequest, author: str, text: str) -> JsonResponse:
    """Write, and have what was computed of it invalidated when that is committed."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (%s, %s)", [author, text])
        invalidate_on_commit(tags=[f"author:{author}"])
    return JsonResponse({"notes": notes(author)})


urlpatterns = [path("<str:author>", show), path("<str:author>/<str:text>", write)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
