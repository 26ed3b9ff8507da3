"""The worker is told what is wrong with its environment once, all of it, and never says a secret."""

from __future__ import annotations

import argparse
import base64
from dataclasses import replace

import pytest

from worker.commands import config
from worker.settings import CACHE_VARIABLES, CannotStart, Settings, declared

WRONG = {
    "REDIS_URL": "http://example",
    "STORE_REDIS_URL": "redis://host:port",
    "REDIS_ENABLED": "maybe",
    "CACHE_ENABLED": "2",
    "CACHE_NAMESPACE": "a b",
    "CACHE_DEFAULT_TTL": "five minutes",
    "CACHE_MAX_MEMORY_ENTRIES": "-1",
    "CACHE_MAX_STALENESS": "soon",
    "BUS_SHARDS": "0",
    "BUS_RETENTION": "400d",
    "BUS_SIGNED_CHANNELS": "trade:*=perhaps",
    "HANDLERS": "my-handlers",
    "SCHEDULES": "a..b",
    "CACHE": "tradesense.views",
    "DATABASE_URL": "mysql://localhost/x",
    "DRAIN_BUDGET": "1h",
    "PORT": "http",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
}


def test_every_problem_is_listed_at_once() -> None:
    """A bad environment is one list: a line for each field, with its value and what to write instead."""
    with pytest.raises(CannotStart) as refused:
        Settings.from_environment(WRONG)
    fields = [problem.partition(":")[0] for problem in refused.value.problems]
    assert sorted(fields) == sorted(WRONG)
    assert "BUS_SHARDS: '0' is not a whole number from 1 to 64" in refused.value.problems


def test_an_empty_environment_is_enough() -> None:
    """Nothing needs to be set: one shard, no port, the packages of this repository, the embedded server."""
    settings = Settings.from_environment({})
    assert settings.cache.url is None
    assert settings.bus.shards == 1
    assert settings.process.port is None
    assert settings.application.handlers == ("handlers",)
    assert settings.application.cache == ("tradesense.views", "cache")


def test_an_empty_variable_counts_as_unset() -> None:
    """Platforms pass a variable without a value as an empty text; that is not a bad value."""
    assert Settings.from_environment(dict.fromkeys(WRONG, " ")) == Settings.from_environment({})


def test_the_private_address_is_preferred() -> None:
    """REDIS_PRIVATE_URL wins over REDIS_URL, as on Railway."""
    both = {"REDIS_URL": "redis://public:1/0", "REDIS_PRIVATE_URL": "redis://private:2/0"}
    assert Settings.from_environment(both).cache.url == "redis://private:2/0"


def test_a_store_without_a_cache_server_is_refused() -> None:
    """STORE_REDIS_URL alone would leave the cached values nowhere: it is said, not guessed."""
    with pytest.raises(CannotStart, match="STORE_REDIS_URL: is set but REDIS_URL is not"):
        Settings.from_environment({"STORE_REDIS_URL": "redis://store:1/0"})


@pytest.mark.parametrize(("text", "ms"), [("8", 8_000), ("1.5", 1_500), ("250ms", 250), ("1m30s", 90_000)])
def test_a_bare_number_is_seconds(text: str, ms: int) -> None:
    """Durations are written with a unit or as plain seconds."""
    assert Settings.from_environment({"DRAIN_BUDGET": text}).process.drain_ms == ms


def test_a_misspelt_variable_is_noticed() -> None:
    """A variable that is nearly a setting is a warning; one of somebody else's is none."""
    settings = Settings.from_environment({"CACHE_DEFUALT_TTL": "60", "REDIS_PUBLIC_URL": "x", "HOME": "/"})
    assert settings.unknown == ("CACHE_DEFUALT_TTL: is not a setting; did you mean CACHE_DEFAULT_TTL?",)


def test_secrets_do_not_show() -> None:
    """Printing the settings, as a traceback or a debugger does, shows no password."""
    environment = {"REDIS_URL": "redis://:s3cr3t-a@h:1/0", "DATABASE_URL": "postgres://u:s3cr3t-b@h/db"}
    assert "s3cr3t" not in repr(Settings.from_environment(environment))


def test_signed_channels_need_a_good_key() -> None:
    """Channels that are to be signed, with a key that is too short or none: refused, and the key is not shown."""
    signed = {"BUS_SIGNED_CHANNELS": "trade:*=require, settings:*=warn"}
    key = "whsec_" + base64.b64encode(b"k" * 24).decode()
    signatures = Settings.from_environment({**signed, "BUS_SIGNING_KEYS": key}).bus.signatures()
    assert signatures is not None
    assert signatures.policy("trade:updates") == "require"
    for bad in ({}, {"BUS_SIGNING_KEYS": "whsec_c2hvcnQ="}):
        with pytest.raises(CannotStart, match="BUS_SIGNING_KEYS") as refused:
            Settings.from_environment({**signed, **bad})
        assert "c2hvcnQ" not in str(refused.value)


def test_a_key_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """`config` shows that a key is set, and not the key."""
    key = "whsec_" + base64.b64encode(b"k" * 24).decode()
    settings = Settings.from_environment({"BUS_SIGNING_KEYS": key})
    config.main(argparse.Namespace(), settings)
    assert key not in capsys.readouterr().out
    assert key not in repr(settings)
    assert key not in settings.masking()(f"the key is {key}")


def test_every_default_can_be_read() -> None:
    """The defaults in the documentation are values that the settings accept, with the same result as none."""
    written = {setting.variable: setting.default for setting in declared()}
    written |= {variable: default for variable, (_, default, _) in CACHE_VARIABLES.items()}
    assert replace(Settings.from_environment(written), written={}) == Settings.from_environment({})
