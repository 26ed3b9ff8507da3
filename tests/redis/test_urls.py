"""A URL that cannot be read: the error says what to write, and nothing of the password."""

from __future__ import annotations

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError
from cachebus.redis.address import Address

PASSWORD = "hunter2"  # noqa: S105 - nobody's


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://app:hunter2/xyz@127.0.0.1:6379/0", "number of a port, 1 to 65535; in a password / is written %2F"),
        ("redis://app:12345/hunter2@127.0.0.1:6379/0", "number of a database; in a password / is written %2F"),
        ("redis://app:hunter2#xyz@127.0.0.1:6379/0", "in a password / is written %2F, ? %3F, # %23"),
        ("redis://app:hunter2?xyz@127.0.0.1:6379/0", "in a password / is written %2F, ? %3F, # %23"),
        ("redis://app:[hunter2@127.0.0.1:6379/0", "in a password"),
        ("redis://app:hunter2", "number of a port"),
        ("redis://app:hunter2@[::1", "REDIS_URL"),
        ("redis://app:hunter2@127.0.0.1:63x79/0", "number of a port"),
        ("redis+sentinel://app:hunter2/x@one:1,two:2/main/0", "number of a port"),
        ("redis+cluster://app:hunter2/x@one:1,two:2", "number of a port"),
        ("redis//app:hunter2@127.0.0.1:6379/0", "what it begins with is not a known form; use redis://"),
        ("app:hunter2@127.0.0.1:6379", "what it begins with is not a known form"),
        ("app:hunter2@127.0.0.1:6379?to=redis://", "what it begins with is not a known form"),
        ("postgres://app:hunter2@127.0.0.1/0", "postgres:// is not a known form"),
        ("redis://app:hunter2@127.0.0.1/0?health_check_interval=hunter2", "Invalid value for 'health_check_interval'"),
        ("redis://app:hunter2@127.0.0.1:99999/0", "REDIS_URL"),
    ],
)
async def test_no_part_of_a_password_is_in_an_error(url: str, says: str) -> None:
    """Neither from the environment, whose variable the error names, nor where the program gives the URL."""
    with pytest.raises(ConfigurationError) as read:
        CacheSettings.from_environment({"REDIS_URL": "redis://127.0.0.1", "STORE_REDIS_URL": url})
    with pytest.raises(ConfigurationError) as given:
        await Cache(url).get("any")
    for error in (str(read.value), str(given.value)):
        assert says.replace("REDIS_URL", "") in error
        assert PASSWORD not in error
    assert "STORE_REDIS_URL: " in str(read.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:hun%2Fter%232@127.0.0.1:6379/0",
        "redis://app:hun@ter2@127.0.0.1:6379/0",
        "redis://127.0.0.1:6379/0?password=p@ss",
        "redis://[::1]:6379/0",
        "unix:///tmp/a@b.sock?db=1",
    ],
)
def test_what_can_be_read_is(url: str) -> None:
    """Also with signs that would be wrong elsewhere."""
    assert Address(url)
