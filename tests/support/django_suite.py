"""Django's own tests of caches and sessions, run against ours. Arguments: folder, URL, namespace.

The folder is `tests` of Django's source distribution. Prints one line of JSON: what became of each test.
"""

from __future__ import annotations

import json
import sys
import unittest

FOLDER, URL, NAMESPACE = sys.argv[1:4]
sys.path.insert(0, FOLDER)

import django  # noqa: E402
from django.conf import settings  # noqa: E402

OURS = {
    "BACKEND": "cachebus.integrations.django.Cache",
    "LOCATION": URL,
    "OPTIONS": {"namespace": NAMESPACE, "report": False},
}
settings.configure(
    ALLOWED_HOSTS=["*"],
    CACHES={"default": OURS},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    SECRET_KEY="of tests",  # noqa: S106 - signs nothing that counts
    USE_TZ=True,
)
settings.INSTALLED_APPS += ["cache", "sessions_tests"]
django.setup()

from cache.tests import BaseCacheTests, caches_setting_for_tests  # noqa: E402
from django.test import SimpleTestCase, TestCase, override_settings  # noqa: E402
from django.test.utils import get_runner  # noqa: E402
from sessions_tests.tests import SessionTestsMixin  # noqa: E402

from cachebus.integrations.django.sessions import SessionStore  # noqa: E402


@override_settings(CACHES=caches_setting_for_tests(base=OURS, exclude={"cull", "zero_cull"}))
class Caches(BaseCacheTests, TestCase):
    """What Django asks of every backend. Memory has a size here, but is no database to be culled."""


class Sessions(SessionTestsMixin, SimpleTestCase):
    """What Django asks of every session engine."""

    backend = SessionStore


def main() -> None:
    """Run both suites."""
    runner = get_runner(settings)(verbosity=0, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in (Caches, Sessions))
    became = {test.id(): "" for case in suite for test in case}  # type: ignore[attr-defined] # a suite of suites
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=0).run(suite)
    for test, why in [*result.errors, *result.failures, *result.skipped]:
        became[getattr(test, "test_case", test).id()] = why.strip().rpartition("\n")[2]
    runner.teardown_databases(databases)
    print(json.dumps({name.removeprefix("__main__."): why for name, why in became.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
