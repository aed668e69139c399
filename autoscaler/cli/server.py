"""Options of commands that ask a Prometheus-compatible server, and times as people write them."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.core.types import Policies, Role
from autoscaler.edge.policy_files import load_policies

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Url = Annotated[str, typer.Option(help="Address before /api/v1, such as http://prometheus:9090.")]
Config = Annotated[
    Path | None, typer.Option(help="YAML with `labels`: which label names service, variant, ...")
]
User = Annotated[str | None, typer.Option(help="Basic authentication: user.")]
PasswordFile = Annotated[Path | None, typer.Option(help="Basic authentication: file, one line.")]
BearerTokenFile = Annotated[Path | None, typer.Option(help="File with a bearer token.")]
CaFile = Annotated[Path | None, typer.Option(help="PEM file of authorities to trust.")]
Tenant = Annotated[str | None, typer.Option(help="Sent as X-Scope-OrgID (Mimir).")]
Timeout = Annotated[float, typer.Option(help="Seconds for one whole answer.", min=0.1)]


def seconds_of(text: str, option: str) -> float:
    """Return a duration such as 60s, 5m, 1h in seconds, or raise BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise typer.BadParameter(
            f"{text!r}; allowed: a number and s, m, h, d or w", param_hint=option
        )
    return float(match[1]) * UNIT_SECONDS[match[2]]


def instant_of(text: str, now_seconds: float, option: str) -> float:
    """Return `now`, `14d` (ago), seconds since the epoch or an ISO time with a zone, as seconds."""
    word = text.strip()
    if word == "now":
        return now_seconds
    if re.fullmatch(r"\d+(\.\d+)?[smhdw]", word):
        return now_seconds - seconds_of(word, option)
    if re.fullmatch(r"\d{9,11}(\.\d+)?", word):
        return float(word)
    try:
        when = datetime.fromisoformat(word)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r}; allowed: now, 14d (ago), 2026-11-01T00:00:00Z (with a zone), epoch seconds",
            param_hint=option,
        )
    return when.timestamp()


def wall_seconds() -> float:
    """Return the time now: where a command reads the clock, once."""
    return datetime.fromtimestamp(time.time_ns() / 1e9, UTC).timestamp()


def roles_of(policies: Policies) -> tuple[tuple[str, str, str], ...]:
    """Return (service, variant, role) of services that split prefill and decode."""
    return tuple(
        (name, v.name, v.role.value)
        for name, p in sorted(policies.services.items())
        for v in p.variants
        if any(other.role is not Role.BOTH for other in p.variants)
    )


def targets_of(policies: list[Path] | None) -> tuple[tuple[str, float, float], ...]:
    """Return (service, TTFT, TPOT) targets in seconds of policy files; PolicyError."""
    if not policies:
        return ()
    services = load_policies(policies).services
    return tuple(
        (name, p.targets.ttft_seconds, p.targets.tpot_seconds)
        for name, p in sorted(services.items())
    )
