"""A secret does not reach anything that people read."""

from __future__ import annotations

import json

import pytest

from cachebus.process.masking import Masking, mask_urls


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter22@host:6379/0",
        "rediss://user:hunter22@host:6379/0?ssl_cert_reqs=none",
        "redis+sentinel://user:hunter22@a:1,b:2/mymaster/0",
        "postgresql+asyncpg://user:hunter22@host/db",
        "unix://user:hunter22@/run/redis.sock",
        "redis://host:6379/0?password=hunter22",
        "postgresql://user:hunter22/with#more?of@it@host/db",
    ],
)
def test_a_password_in_a_url_is_masked(url: str) -> None:
    """Every form of URL keeps its host and loses its password."""
    masked = mask_urls(f"cannot reach {url!r}: refused")
    assert "hunter22" not in masked
    assert "***" in masked
    assert masked.endswith("refused")


def test_a_password_outside_a_url_is_masked() -> None:
    """An error that quotes the bare password shows none of it, percent-encoded or not, nor escaped in JSON."""
    mask = Masking(["redis://u:p%22ss%2Fword@host/0", None])
    assert "word" not in mask('AUTH failed for p"ss/word (p%22ss%2Fword)')
    assert "word" not in mask(json.dumps({"error": 'p"ss/word'}))


def test_ordinary_text_stays() -> None:
    """Text without a secret is untouched, also beside a URL with none."""
    text = "redis is away: redis://host:6379/0: [Errno 111] at 12:30:01 (a@b)"
    assert Masking(["redis://u:longsecret@h/0"])(text) == text
