"""`manage.py cachebus worker`, and every other command of `cachebus`, with the project's cache, handlers, schedules."""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand


class Command(BaseCommand):  # type: ignore[misc] # Django has no types
    """Names what the project declares, and becomes `cachebus`."""

    help = "cachebus: the worker, and the tools to operate it; `manage.py cachebus --help` lists them"
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run `cachebus` with the arguments as they are: it has a parser of its own."""
        try:
            from cachebus.integrations.django import worker  # noqa: PLC0415 - it asks for the cache, which may be another
        except ImproperlyConfigured as wrong:
            sys.exit(f"cannot start: {wrong}")
        os.environ.setdefault("CACHE", f"{worker.__name__}:cache")
        for variable, word in (("HANDLERS", "handlers"), ("SCHEDULES", "schedules")):
            os.environ.setdefault(variable, ",".join([worker.__name__, *worker.modules_named(word)]))
        sys.argv = [f"{argv[0]} cachebus", *argv[2:]]
        runpy.run_module("cachebus.worker", run_name="__main__")

    def handle(self, *_: Any, **__: Any) -> None:
        """Say how it is used: `call_command` cannot become another program."""
        self.stdout.write("run it as a process: manage.py cachebus worker")
