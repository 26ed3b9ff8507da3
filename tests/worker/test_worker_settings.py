"""The worker is told what is wrong with its environment once, all of it, and never says a secret."""

from __future__ import annotations

import argparse
import base64

import pytest

import cachebus
from cachebus.cache.settings import CacheSettings
from cachebus.environment import misspelt, variables
from cachebus.errors import CannotStart
from cachebus.gateway.settings import SECTIONS as GATEWAY
from cachebus.worker.commands.state import config
from cachebus.worker.settings import SECTIONS, WorkerSettings

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
        WorkerSettings.from_environment(WRONG)
    fields = [problem.partition(":")[0] for problem in refused.value.problems]
    assert sorted(fields) == sorted(WRONG)
    assert "BUS_SHARDS: '0' is not a whole number from 1 to 64" in refused.value.problems


def test_an_empty_environment_is_enough() -> None:
    """Nothing needs to be set: one shard, no port, the modules of the current folder, the embedded server."""
    settings = WorkerSettings.from_environment({})
    assert settings.cache.url is None
    assert settings.bus.shards == 1
    assert settings.process.port is None
    assert settings.application.handlers == ("handlers",)
    assert settings.application.cache == ("views", "cache")


def test_an_empty_variable_counts_as_unset() -> None:
    """Platforms pass a variable without a value as an empty text; that is not a bad value."""
    assert WorkerSettings.from_environment(dict.fromkeys(WRONG, " ")) == WorkerSettings.from_environment({})


def test_the_private_address_is_preferred() -> None:
    """REDIS_PRIVATE_URL wins over REDIS_URL, as on Railway."""
    both = {"REDIS_URL": "redis://public:1/0", "REDIS_PRIVATE_URL": "redis://private:2/0"}
    assert WorkerSettings.from_environment(both).cache.url == "redis://private:2/0"


def test_a_store_without_a_cache_server_is_refused() -> None:
    """STORE_REDIS_URL alone would leave the cached values nowhere: it is said, not guessed."""
    with pytest.raises(CannotStart, match="STORE_REDIS_URL: is set but REDIS_URL is not"):
        WorkerSettings.from_environment({"STORE_REDIS_URL": "redis://store:1/0"})


@pytest.mark.parametrize(("text", "ms"), [("8", 8_000), ("1.5", 1_500), ("250ms", 250), ("1m30s", 90_000)])
def test_a_bare_number_is_seconds(text: str, ms: int) -> None:
    """Durations are written with a unit or as plain seconds."""
    assert WorkerSettings.from_environment({"DRAIN_BUDGET": text}).process.drain_ms == ms


def test_config_knows_the_gateway_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings stand in the table, a name that is nearly one of them is told, a bad value refused."""
    environment = {"GATEWAY_COOKIE": "sid", "GATEWAY_ORIGIN": "https://a.example"}
    assert config.main(argparse.Namespace(json=False), environment) == 0
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines() if line.startswith("GATEWAY_COOKIE")] == [
        ["GATEWAY_COOKIE", "sid", "environment"]
    ]
    assert said.err == "warning: GATEWAY_ORIGIN: is not a setting; did you mean GATEWAY_ORIGINS?\n"
    with pytest.raises(CannotStart, match="GATEWAY_DRAIN"):
        config.main(argparse.Namespace(json=False), {"GATEWAY_DRAIN": "soon"})


@pytest.mark.parametrize("sections", [(CacheSettings,), GATEWAY, SECTIONS])
def test_no_program_takes_the_settings_of_another_for_mistakes(sections: tuple[type, ...]) -> None:
    """All of them share one environment in many deployments; each knows its own."""
    every = [each.name for each in variables(*SECTIONS, *GATEWAY)]
    assert list(misspelt(every, [each.name for each in variables(*sections)])) == []


def test_a_misspelt_variable_is_noticed() -> None:
    """A variable that is nearly a setting is a warning; one of somebody else's is none."""
    settings = WorkerSettings.from_environment({"CACHE_DEFUALT_TTL": "60", "REDIS_PUBLIC_URL": "x", "HOME": "/"})
    assert settings.unknown == ("CACHE_DEFUALT_TTL: is not a setting; did you mean CACHE_DEFAULT_TTL?",)


def test_a_misspelt_variable_of_the_gateway_is_noticed_by_a_worker_too() -> None:
    """They are often given one environment; what is spelt right is no warning."""
    settings = WorkerSettings.from_environment({"GATEWAY_ORIGNS": "https://shop.example", "GATEWAY_COOKIE": "session"})
    assert settings.unknown == ("GATEWAY_ORIGNS: is not a setting; did you mean GATEWAY_ORIGINS?",)


def test_secrets_do_not_show() -> None:
    """Printing the settings, as a traceback or a debugger does, shows no password."""
    environment = {"REDIS_URL": "redis://:s3cr3t-a@h:1/0", "DATABASE_URL": "postgres://u:s3cr3t-b@h/db"}
    assert "s3cr3t" not in repr(WorkerSettings.from_environment(environment))


def test_signed_channels_need_a_good_key() -> None:
    """Channels that are to be signed, with a key that is too short or none: refused, and the key is not shown."""
    signed = {"BUS_SIGNED_CHANNELS": "trade:*=require, settings:*=warn"}
    key = "whsec_" + base64.b64encode(b"k" * 24).decode()
    signatures = WorkerSettings.from_environment({**signed, "BUS_SIGNING_KEYS": key}).bus.signatures()
    assert signatures is not None
    assert signatures.policy("trade:updates") == "require"
    for bad in ({}, {"BUS_SIGNING_KEYS": "whsec_c2hvcnQ="}):
        with pytest.raises(CannotStart, match="BUS_SIGNING_KEYS") as refused:
            WorkerSettings.from_environment({**signed, **bad})
        assert "c2hvcnQ" not in str(refused.value)


def test_a_key_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """`config` shows that a key is set, and not the key."""
    key = "whsec_" + base64.b64encode(b"k" * 24).decode()
    environment = {"BUS_SIGNING_KEYS": key}
    settings = WorkerSettings.from_environment(environment)
    config.main(argparse.Namespace(json=False), environment)
    assert key not in capsys.readouterr().out
    assert key not in repr(settings)
    assert key not in settings.masking()(f"the key is {key}")


def test_what_is_deployed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Environment and release, ours before the platform's, an empty one unset; and the library's version."""
    environment = {
        "ENVIRONMENT": " ",
        "RAILWAY_ENVIRONMENT_NAME": "staging",
        "RELEASE": "v42",
        "HEROKU_SLUG_COMMIT": "4d5e",
    }
    config.main(argparse.Namespace(json=False), environment)
    said = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:4]]
    assert said == [
        ["ENVIRONMENT", "staging", "environment,"],
        ["RELEASE", "v42", "environment"],
        ["(version)", cachebus.__version__, "installed"],
    ]


def test_every_default_can_be_read() -> None:
    """The defaults in the documentation are values that the settings accept, with the same result as none."""
    written = {each.name: each.default for each in variables(*SECTIONS)}
    assert WorkerSettings.from_environment(written) == WorkerSettings.from_environment({})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("CACHE_TTL", "CACHE_DEFAULT_TTL"),
        ("CACHE_STALENESS", "CACHE_MAX_STALENESS"),
        ("BUS_SIGNING_KEY", "BUS_SIGNING_KEYS"),
        ("CACHE_DEFAULT_TTL_SECONDS", "CACHE_DEFAULT_TTL"),
        ("REDIS_ULR", "REDIS_URL"),
    ],
)
def test_a_shortened_name_is_noticed_too(written: str, meant: str) -> None:
    """A name that has some of a setting's words is named with the one that was meant."""
    assert WorkerSettings.from_environment({written: "60"}).unknown == (
        f"{written}: is not a setting; did you mean {meant}?",
    )


def test_names_of_others_are_left_alone() -> None:
    """Variables of frameworks and platforms that begin alike are no mistakes."""
    others = ("CACHE_URL", "CACHE_BACKEND", "REDIS_PUBLIC_URL", "DATABASE_URL_POOLED", "PORT_FORWARD")
    assert WorkerSettings.from_environment(dict.fromkeys(others, "x")).unknown == ()
