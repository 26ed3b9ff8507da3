"""A Django project in one file, its views plain functions: `gunicorn --workers 2 --threads 16 django_program:app`."""

from __future__ import annotations

from counted import answer, change
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="of tests", USE_TZ=True)  # noqa: S106 - signs nothing


@require_GET
def read(request: HttpRequest, user_id: int) -> JsonResponse:
    """Return a figure."""
    return JsonResponse(answer(user_id))


@require_POST
def write(request: HttpRequest, user_id: int, value: int) -> JsonResponse:
    """Change a figure."""
    change(user_id, value)
    return JsonResponse(answer(user_id))


urlpatterns = [path("figures/<int:user_id>", read), path("figures/<int:user_id>/<int:value>", write)]
app: WSGIHandler = get_wsgi_application()
