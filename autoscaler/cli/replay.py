"""`foreserve replay`: make logged decisions again and compare every byte."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from autoscaler.edge.artifacts import load_models
from autoscaler.edge.decision_log import LogError, read_log
from autoscaler.edge.decisions import decisions_to_dict
from autoscaler.policy import parse_policies
from autoscaler.replay import replay as replay_entries

EXAMPLE = """
Decide again from a decision log; exit 0 if and only if every byte agrees.

**Examples**

    foreserve replay decisions.jsonl --models models/

    foreserve replay decisions.jsonl --models models/ --at 2026-01-05T08:00:00Z
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay", help=EXAMPLE)(replay)


def replay(
    decisions: Annotated[Path, typer.Argument(help="What `foreserve decide --log` wrote.")],
    models: Annotated[Path, typer.Option(help="Registry folder that decided.")],
    at: Annotated[
        str | None, typer.Option(help="Show the decision in force then (RFC 3339 or seconds).")
    ] = None,
) -> None:
    """Replay a decision log."""
    moment = None if at is None else _seconds(at)
    serving = load_models(models)
    header, entries = read_log(decisions)
    if header.generation != serving.generation:
        raise LogError(
            f"{decisions}: decided with models {header.generation}, {models} holds "
            f"{serving.generation}; allowed: the models that decided"
        )
    ticks = differing = 0
    shown: dict[str, Any] | None = None
    for replayed in replay_entries(parse_policies(header.documents), serving, entries):
        if moment is not None and replayed.entry.observation.now_seconds > moment:
            break
        ticks += 1
        if not replayed.agrees:
            differing += 1
            typer.echo(f"line {replayed.entry.number}: another decision than logged", err=True)
        shown = decisions_to_dict(replayed.decisions)
    if moment is not None:
        if shown is None:
            raise LogError(f"{decisions}: no decision at or before {at}")
        typer.echo(json.dumps(shown, indent=1))
    typer.echo(f"{ticks} decisions replayed, {differing} differ", err=moment is not None)
    if differing:
        raise typer.Exit(1)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r}; allowed: seconds since the epoch or RFC 3339", param_hint="--at"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
