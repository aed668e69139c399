"""The `foreserve` command: wires packages together and nothing else.

Exit status: 0 success, 2 wrong usage or bad input (one line on stderr), 1 a failure at run time.
"""

import gc
import sys
from importlib import metadata
from typing import Annotated, cast

import typer

from autoscaler.cli import (
    backtest,
    crds,
    decide,
    demo,
    explain,
    ingest,
    latency,
    lint,
    otlp,
    replay,
    scaler,
    train,
    tune,
    whatif,
)
from autoscaler.cli import run as run_command
from autoscaler.cli.common import EXIT_INPUT, EXIT_RUN_TIME, fail, set_up_logging
from autoscaler.edge.decision_log import LogError
from autoscaler.policy import PolicyError
from autoscaler.whatif.scenario import ScenarioError
from models.artifact import ArtifactError
from models.contract import ContractError
from models.frames import FrameError
from models.latency import LatencyModelError
from training.ingest import IngestError
from training.registry import RegistryError

# typer shows some of its exceptions and not this one: the parent of every wrong use
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
EXIT_INTERRUPTED = 130  # as a shell says it of SIGINT
BAD_INPUT = (
    ArtifactError,
    ContractError,
    FrameError,
    IngestError,
    LatencyModelError,
    LogError,
    PolicyError,
    ScenarioError,
)

app = typer.Typer(
    name="foreserve",
    help="A predictive autoscaler for vLLM on Kubernetes: replicas ahead of demand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    demo,
    ingest,
    lint,
    otlp,
    train,
    backtest,
    latency,
    decide,
    replay,
    explain,
    scaler,
    whatif,
    tune,
    crds,
    run_command,
):
    module.add_to(app)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foreserve {metadata.version('foreserve')}")
        raise typer.Exit


@app.callback()
def of_all_commands(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show it and exit."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; the entry point of the `foreserve` script."""
    gc.freeze()  # what is imported lives to the end: looking through it at the exit took a second
    set_up_logging()
    sys.exit(run())


def run() -> int:
    """Run the command and return its exit status."""
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        message = error.format_message()  # empty where the help was shown instead
        return fail(f"{message} (--help shows how)", EXIT_INPUT) if message else EXIT_INPUT
    except typer.Abort:
        return fail("interrupted", EXIT_INTERRUPTED)
    except BAD_INPUT as error:
        return fail(str(error), EXIT_INPUT)
    except BrokenPipeError:
        return fail("the reader of the output has gone away", EXIT_RUN_TIME)
    except (RegistryError, OSError, MemoryError) as error:
        return fail(str(error) or type(error).__name__, EXIT_RUN_TIME)
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    return status if isinstance(status, int) else 0
