"""The settings that worker and gateway share: address, folder, patience, logs."""

from __future__ import annotations

from dataclasses import dataclass

from cachebus.environment import duration_ms, one_of, text, variable, whole


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """How the process itself behaves."""

    drain_ms: int = variable(
        "DRAIN_BUDGET", "8s", duration_ms("100ms", "10m"), "How long work in progress may take to end after SIGTERM"
    )
    data_dir: str = variable("DATA_DIR", ".data", text, "Folder of the heartbeat files that `check` reads")
    host: str | None = variable("HOST", "", text, "Address to listen on; without it, all, IPv4 and IPv6")
    port: int | None = variable(
        "PORT",
        "",
        whole(1, 65535),
        "Port of the gateway (else 8080), or of the worker's pages (else none)",
    )
    listen_fd: int | None = variable(
        "LISTEN_FD",
        "",
        whole(3, 65535),
        "File descriptor of a listening socket that the parent process holds, to be used for PORT",
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how."""

    level: str = variable(
        "LOG_LEVEL", "info", one_of("debug", "info", "warning", "error"), "The least severe level that is logged"
    )
    format: str = variable(
        "LOG_FORMAT", "auto", one_of("auto", "json", "console"), "auto: console on a terminal, JSON lines elsewhere"
    )
