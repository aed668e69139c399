"""`foreserve replay`: make logged decisions again and compare every byte."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import moment
from autoscaler.core.outcome import Decisions
from autoscaler.edge.artifacts import load_named
from autoscaler.edge.decision_folder import files_of
from autoscaler.edge.decision_log import LogError, read_log
from autoscaler.edge.decisions import decisions_to_dict
from autoscaler.policy import parse_policies
from autoscaler.replay import replay as replay_entries
from models.artifact import ArtifactError

EXAMPLE = """
Decide again from a decision log; exit 0 if and only if every byte agrees.

**Examples**

    foreserve replay decisions.jsonl --models models/

    foreserve replay decisions.jsonl --models models/ --at 2026-01-05T08:00:00Z

    foreserve replay decision-log/ --models models/
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay", help=EXAMPLE)(replay)


@dataclass(slots=True)
class _Result:
    """What came of all files; `last`: the newest decision that was asked for."""

    ticks: int = 0
    differing: int = 0
    last: Decisions | None = None


def replay(
    decisions: Annotated[
        Path,
        typer.Argument(help="What `decide --log` wrote, or `run --decision-log`: file or folder."),
    ],
    models: Annotated[Path, typer.Option(help="Registry folder that decided.")],
    at: Annotated[
        str | None, typer.Option(help="Show the decision in force then (RFC 3339 or seconds).")
    ] = None,
) -> None:
    """Replay a decision log."""
    until = None if at is None else moment(at, "--at")
    result = _Result()
    for file in files_of(decisions):
        _replay_file(file, models, math.inf if until is None else until, result)
    if until is not None:
        if result.last is None:
            raise LogError(f"{decisions}: no decision at or before {at}")
        typer.echo(json.dumps(decisions_to_dict(result.last), indent=1))
    told = f"{result.ticks} decisions replayed, {result.differing} differ"
    typer.echo(told, err=until is not None)
    if result.differing:
        raise typer.Exit(1)


def _replay_file(file: Path, models: Path, until_seconds: float, result: _Result) -> None:
    header, entries = read_log(file)
    try:
        serving = load_named(models, header.generation)
    except ArtifactError as error:
        raise LogError(f"{file}: decided with models {header.generation}: {error}") from error
    try:
        for replayed in replay_entries(parse_policies(header.documents), serving, entries):
            now = replayed.decisions.now_seconds
            if now > until_seconds:
                return
            result.ticks += 1
            if not replayed.agrees:
                result.differing += 1
                number = replayed.entry.number
                typer.echo(f"{file}: line {number}: another decision than logged", err=True)
            if result.last is None or now >= result.last.now_seconds:
                result.last = replayed.decisions
    except LogError as error:
        where = "" if str(error).startswith(str(file)) else f"{file}: "
        raise LogError(f"{where}{error}") from error
