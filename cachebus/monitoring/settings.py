"""The settings of the live page and of alerts."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from cachebus.environment import duration_ms, flag, one_of, variable
from cachebus.errors import ConfigurationError


def _web_address(name: str, text: str) -> str:
    """Read the URL of a page; what stands in it may be a secret, so that no message repeats it."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and text.isascii() and text.isprintable()
    except ValueError:
        good = False
    if not good or " " in text:
        raise ConfigurationError(f"{name}: this is not a URL such as https://hooks.example.com/cachebus")
    return text


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Who may look at the live page."""

    open_to_all: bool = variable(
        "LIVE_PAGE_OPEN", "false", flag, "true: whoever reaches the live page may look; acting still needs a sign-in"
    )


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Whom the watch of a deployment tells what."""

    url: str | None = variable(
        "ALERT_URL", "", _web_address, "A webhook that is told when the state of the deployment changes", secret=True
    )
    form: str | None = variable(
        "ALERT_FORM", "", one_of("json", "slack"), "json or slack; without it what the host of ALERT_URL takes"
    )
    level: str = variable(
        "ALERT_LEVEL", "bad", one_of("warn", "bad"), "warn: what somebody should look at today is told too"
    )
    after_ms: int = variable("ALERT_AFTER", "1m", duration_ms("0s", "1d"), "How long something lasts before it is told")
    page: str | None = variable("ALERT_PAGE", "", _web_address, "Where the live page is, as a link in each message")
