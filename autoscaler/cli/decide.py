"""`foreserve decide`: the controller's core as a filter, observations in, decisions out."""

import contextlib
import fcntl
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from autoscaler.cli.common import log
from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels, load_models
from autoscaler.edge.decision_log import DecisionLog, Header
from autoscaler.edge.decisions import answer_line, decisions_to_dict
from autoscaler.edge.garbage import collect_seldom, give_back, keep_little
from autoscaler.edge.history import read_parts
from autoscaler.edge.policy_files import read_documents
from autoscaler.edge.wire import MAX_LINE_CHARACTERS, WireError, parse_observation
from autoscaler.loop import Controller, StepError
from autoscaler.policy import parse_policies

PIPE_BYTES = 1 << 20  # the most that Linux gives to everybody: a line of 1,000 services is 600 kB

EXAMPLE = """
Read one JSON observation a line, write one JSON decision a line. No clock, no network.

**Example**

    foreserve decide --models models/ --policies policies.yaml --history load.parquet \\
                     --log decisions.jsonl < observations.jsonl
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("decide", help=EXAMPLE)(decide)


def decide(
    models: Annotated[Path, typer.Option(help="Registry folder written by `train`.")],
    policies: Annotated[list[Path], typer.Option(help="YAML with policies and pools; repeatable.")],
    history: Annotated[Path | None, typer.Option(help="load.parquet up to now.")] = None,
    log_file: Annotated[
        Path | None, typer.Option("--log", help="Write the decision log here, for `replay`.")
    ] = None,
) -> None:
    """Decide for every line of stdin."""
    keep_little()
    documents = read_documents(policies)
    controller = _controller(parse_policies(documents), load_models(models), history)
    collect_seldom()
    header = Header(controller.models.generation, tuple(documents))
    with contextlib.ExitStack() as stack:
        decision_log = None
        if log_file is not None:
            file = stack.enter_context(log_file.open("w", encoding="utf-8"))
            decision_log = DecisionLog(file, header)
        source = _in_large_pieces(sys.stdin.buffer)
        _widen(sys.stdout.buffer)
        filter_lines(controller, source, sys.stdout.buffer, decision_log)


def _controller(policies: Policies, models: ServingModels, history: Path | None) -> Controller:
    """Return a controller that goes on from a history."""
    controller = Controller(policies, models)
    if history is not None:
        step = models.load.step_seconds if models.load is not None else None
        keep = models.load.history_steps if models.load is not None else 0
        give_back()
        controller.seed_parts(read_parts(history, set(policies.services), step, keep))
    return controller


def _in_large_pieces(source: BinaryIO) -> BinaryIO:
    """Return a source that takes a line in a few pieces, if it reads from the system; 8 kB are usual."""
    raw = getattr(source, "raw", None)
    if not isinstance(raw, io.FileIO):
        return source
    _widen(source)
    return open(raw.fileno(), "rb", buffering=PIPE_BYTES, closefd=False)


def _widen(end: BinaryIO) -> None:
    """Let a whole line into a pipe, so that neither side waits for the other within it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a file, a terminal, or more than the system allows
            fcntl.fcntl(end.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def filter_lines(
    controller: Controller, source: BinaryIO, sink: BinaryIO, decision_log: DecisionLog | None
) -> None:
    """Answer every line; a line that cannot be used gets an error object and the filter goes on."""
    unknown: set[str] = set()
    for number, text in _lines(source):
        without_policy = _answer(controller, number, text, sink, decision_log)
        for name in sorted(without_policy - unknown):
            unknown.add(name)
            log.warning("%s: telemetry but no policy: not decided", name)


def _answer(
    controller: Controller, number: int, text: str, sink: BinaryIO, decision_log: DecisionLog | None
) -> set[str]:
    """Answer one line; return the services of which it tells without a policy for them.

    Accounts are for the log alone: without one, none are kept.
    """
    try:
        observation = parse_observation(text, number)
        step = (
            controller.decide(observation) if decision_log is None else controller.step(observation)
        )
    except WireError as error:
        _write(sink, _error(error.line, error.field, error.message))
        return set()
    except StepError as error:
        _write(sink, _error(number, error.field, str(error)))
        return set()
    if decision_log is not None:
        decision_log.append(observation, step.forecasts.outlooks, step.decisions, step.accounts)
    _write(sink, answer_line(decisions_to_dict(step.decisions)))
    return set(observation.services) - set(controller.policies.services)


def _write(sink: BinaryIO, line: bytes) -> None:
    sink.write(line)
    sink.flush()


def _lines(source: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield numbered lines; one beyond the limit is cut there, so that it is refused, not buffered."""
    number = 0
    while True:
        raw = source.readline(MAX_LINE_CHARACTERS + 1)
        if not raw:
            return
        number += 1
        if len(raw) > MAX_LINE_CHARACTERS:
            while not raw.endswith(b"\n"):
                raw = source.readline(1 << 20)
                if not raw:
                    break
            yield number, "\0" * (MAX_LINE_CHARACTERS + 1)
            continue
        yield number, raw.decode("utf-8", errors="replace")


def _error(line: int, field: str, message: str) -> bytes:
    error = {"error": {"line": line, "field": field, "message": message}}
    return json.dumps(error).encode("ascii") + b"\n"
