"""What every command shares: errors as one line with the right status, progress, reading, writing."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from models.progress import Progress as Report

EXIT_RUN_TIME = 1  # failed while running
EXIT_INPUT = 2  # wrong usage or bad input

log = logging.getLogger("foreserve")


PLAIN_COLUMNS = 140  # width of tables where there is no terminal


def result_console() -> Console:
    """Return the console for results: as wide as the terminal, or wide enough for a log."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_COLUMNS)


def set_up_logging() -> None:
    """Log plain lines to stderr; stdout belongs to results."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")


def log_as(form: str, level: str) -> None:
    """Log as `text` or `json` lines from `info` or `debug` on; BadParameter for anything else."""
    if form not in {"text", "json"}:
        raise typer.BadParameter(f"{form!r}; allowed: text, json", param_hint="--log-format")
    if level not in {"info", "debug"}:
        raise typer.BadParameter(f"{level!r}; allowed: info, debug", param_hint="--log-level")
    root = logging.getLogger()
    for handler in root.handlers:
        if form == "json":
            from pythonjsonlogger.json import JsonFormatter

            fields = "%(levelname)s %(name)s %(message)s"
            names = {"levelname": "level", "name": "logger"}
            handler.setFormatter(JsonFormatter(fields, rename_fields=names, timestamp="time"))
        else:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("foreserve").setLevel(level.upper())
    logging.getLogger("kopf").setLevel(logging.WARNING)  # its own account of every watch
    # every try of every watch while the API server is away: the Lease and the turns say so once
    logging.getLogger("kopf._cogs.clients.watching").setLevel(logging.CRITICAL)


def moment(text: str, option: str) -> float:
    """Return seconds since the epoch of RFC 3339 (UTC if it names no zone) or a number; BadParameter."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r}; allowed: seconds since the epoch or RFC 3339", param_hint=option
        ) from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def fail(message: str, status: int) -> int:
    """Print one line to stderr and return the status."""
    line = " ".join(message.split())
    sys.stderr.write(f"foreserve: {line}\n")
    return status


@contextmanager
def progress_report() -> Iterator[Report]:
    """Yield a Progress callback: bars on a terminal, a log line per finished part otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_report()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _plain_report() -> Report:
    """Return a callback that logs each quarter of a part, once."""
    shown: dict[str, int] = {}

    def report(what: str, done: int, total: int) -> None:
        quarter = 4 * done // max(total, 1)
        if quarter > shown.get(what, 0):
            shown[what] = quarter
            log.info("%s: %d of %d", what, done, total)

    return report


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON document for machines; NaN is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(no_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def no_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the same with NaN and infinity as None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {k: no_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [no_nan(v) for v in value]
    return value
