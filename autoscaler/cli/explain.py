"""`foreserve explain`: why a service has the replicas it has, from the decision log."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import moment
from autoscaler.edge.account_record import account_to_dict
from autoscaler.edge.decision_folder import files_of
from autoscaler.edge.decision_log import LogError, read_log
from autoscaler.explain import Decided, decided_at, in_words
from autoscaler.policy import parse_policies

EXAMPLE = """
Print in five lines why a service has the replicas it has: the decision in force at a time, from the log. Then
what the last closed hour cost beside other plans, and why.

**Examples**

    foreserve explain prod/chat --log decisions.jsonl

    foreserve explain prod/chat --log decision-log/ --at 2026-01-05T08:00:00Z

    foreserve explain prod/chat --log decision-log/ --json | jq .decision.reason
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", help=EXAMPLE)(explain)


def explain(
    service: Annotated[str, typer.Argument(help="namespace/name, as in decisions.")],
    log: Annotated[
        Path,
        typer.Option(help="What `decide --log` wrote, or `run --decision-log`: file or folder."),
    ],
    at: Annotated[
        str | None,
        typer.Option(help="RFC 3339 or seconds since the epoch; the last one if absent."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The logged decision with its lines, for machines.")
    ] = False,
) -> None:
    """Explain one decision."""
    until = math.inf if at is None else moment(at, "--at")
    found = _find(service, log, until)
    lines = in_words(found)
    if as_json:
        content = {
            "service": service,
            "now_seconds": found.observation.now_seconds,
            "since_seconds": found.since_seconds,
            "replicas": found.replicas,
            "replicas_before": found.before,
            "decision": found.decision,
            "hour": None if found.account is None else account_to_dict(found.account),
            "lines": lines,
        }
        typer.echo(json.dumps(content, indent=1))
        return
    for line in lines:
        typer.echo(line)


def _find(service: str, log: Path, until_seconds: float) -> Decided:
    """Return the newest decision of the service in all files of the log, or raise LogError."""
    found: Decided | None = None
    for file in files_of(log):
        header, entries = read_log(file)
        policies = parse_policies(header.documents)
        found = decided_at(service, policies, entries, until_seconds, found)
    if found is None:
        when = "" if math.isinf(until_seconds) else " at or before that time"
        raise LogError(
            f"{log}: no decision for {service}{when}; allowed: namespace/name in the log"
        )
    return found
