"""`foreserve backtest`: forecasts at given cutoffs, for others to score."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from autoscaler.cli.common import log, progress_report
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import StoreRules, StoreService, StoreVariant, telemetry_folder
from models.frames import LOAD_NUMBERS, FrameError, to_series, validate_load
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE

EXAMPLE = """
Forecast from given cutoffs, each with only what was known then, and write the quantiles.

**Example**

    foreserve backtest --load load.parquet --cutoffs cutoffs.parquet --horizon-steps 6 \\
                       --target requests --out forecasts.parquet
"""
MAX_HORIZON_STEPS = 2880


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backtest", help=EXAMPLE)(backtest)


def backtest(
    load: Annotated[
        Path, typer.Option(help="load.parquet of the telemetry folder, or an OTLP store.")
    ],
    cutoffs: Annotated[Path, typer.Option(help="Parquet with service, cutoff (UTC).")],
    horizon_steps: Annotated[int, typer.Option(min=1, max=MAX_HORIZON_STEPS, help="Steps ahead.")],
    out: Annotated[Path, typer.Option(help="Where forecasts go (Parquet).")],
    target: Annotated[str, typer.Option(help=f"One of {', '.join(LOAD_NUMBERS)}.")] = "requests",
    service: StoreService = SERVICE_TEMPLATE,
    variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
) -> None:
    """Forecast at every cutoff."""
    from training.backtest import backtest as run_backtest
    from training.telemetry import LOAD_FILE, read_frame

    if target not in LOAD_NUMBERS:
        raise typer.BadParameter(
            f"{target!r}; allowed: {', '.join(LOAD_NUMBERS)}", param_hint="--target"
        )
    with telemetry_folder(load, identity_of(service, variant, rules)) as found:
        file = found if found == load else found / LOAD_FILE  # of a store
        series = to_series(read_frame(file, validate_load), str(load))
    asked = read_frame(cutoffs, _validate_cutoffs)
    try:
        with progress_report() as report:
            forecasts = run_backtest(
                series, asked, horizon_steps=horizon_steps, target=target, progress=report
            )
    except ValueError as error:
        raise FrameError(f"{cutoffs}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    forecasts.to_parquet(out, index=False)
    log.info("%s: %d forecasts at %d cutoffs", out, len(forecasts), len(asked))


def _validate_cutoffs(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    missing = [c for c in ("service", "cutoff") if c not in frame.columns]
    if missing:
        raise FrameError(
            f"{where}: column {', '.join(missing)} is missing; required: service, cutoff"
        )
    if not isinstance(frame.cutoff.dtype, pd.DatetimeTZDtype):
        raise FrameError(
            f"{where}: column 'cutoff' holds {frame.cutoff.dtype}; allowed: timestamps with a time zone"
        )
    return frame.assign(service=frame.service.astype(str))
