"""`foreserve backtest`: forecasts at given cutoffs, for others to score."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer

from autoscaler.cli.common import log, progress_report
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import (
    HolidaysOf,
    HolidaysZone,
    StoreRules,
    StoreService,
    StoreVariant,
    telemetry_folder,
)
from models.frames import LOAD_NUMBERS, FrameError, LoadSeries, to_series
from models.holiday_calendar import Holidays
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE, Identity

if TYPE_CHECKING:  # the page wants bokeh, which the extra `report` brings
    from autoscaler.pages.backtest import Backtest

EXAMPLE = """
Forecast from given cutoffs, each with only what was known then, and write the quantiles.

**Examples**

    foreserve backtest --load load.parquet --cutoffs cutoffs.parquet --horizon-steps 6 \\
                       --target requests --out forecasts.parquet

How good are the forecasts of my services? A page about the last week (docs/forecasting.md):

    foreserve backtest --load telemetry/ --report backtest.html
"""
MAX_HORIZON_STEPS = 2880
USUAL_HORIZON_SECONDS = 1800.0


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backtest", help=EXAMPLE)(backtest)


def backtest(
    load: Annotated[
        Path,
        typer.Option(help="A telemetry folder, its load.parquet, or an OTLP store."),
    ],
    cutoffs: Annotated[
        Path | None,
        typer.Option(help="Parquet with service, cutoff (UTC); left out: the last week's."),
    ] = None,
    horizon_steps: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_HORIZON_STEPS, help="Steps ahead; left out: half an hour."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where forecasts go (Parquet).")] = None,
    report: Annotated[
        Path | None, typer.Option(help="A page about how good they are (HTML, self-contained).")
    ] = None,
    target: Annotated[str, typer.Option(help=f"One of {', '.join(LOAD_NUMBERS)}.")] = "requests",
    service: StoreService = SERVICE_TEMPLATE,
    variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
    holidays: HolidaysOf = None,
    holidays_zone: HolidaysZone = "UTC",
) -> None:
    """Forecast at every cutoff."""
    from training.contest import usual_cutoffs
    from training.holiday_names import Asked

    if target not in LOAD_NUMBERS:
        raise typer.BadParameter(
            f"{target!r}; allowed: {', '.join(LOAD_NUMBERS)}", param_hint="--target"
        )
    if out is None and report is None:
        raise typer.BadParameter("missing; allowed: a file, or --report", param_hint="--out")
    series = _series(load, identity_of(service, variant, rules))
    steps = horizon_steps or max(1, round(USUAL_HORIZON_SECONDS / series.step_seconds))
    if cutoffs is None:
        asked = usual_cutoffs(series, steps, target)
        if asked.empty:
            raise FrameError(f"{load}: too short to judge {steps} steps ahead in its second half")
    else:
        asked = _read_cutoffs(cutoffs)
    source = cutoffs or load
    free = None if holidays is None else Asked(holidays, holidays_zone).over(series)
    try:
        forecasts, held = _run(series, asked, steps, target, free, contest=report is not None)
    except ValueError as error:
        raise FrameError(f"{source}: {error}") from error
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        forecasts.to_parquet(out, index=False)
        log.info("%s: %d forecasts at %d cutoffs", out, len(forecasts), len(asked))
    if report is not None and held is not None:
        _write_page(report, held, load.name, source)


def _series(load: Path, identity: Identity) -> LoadSeries:
    from training.demand import without_outages
    from training.telemetry import read_load, read_telemetry

    with telemetry_folder(load, identity) as found:
        if not found.is_dir():
            frame, mended = read_load(found)
            series = to_series(frame, str(load))
        else:  # what replicas did tells which zeros are an outage
            telemetry = read_telemetry(found)
            mended = telemetry.mended
            series, _ = without_outages(to_series(telemetry.load, str(load)), telemetry.serving)
    for sentence in mended:
        log.warning("%s", sentence)
    return series


def _run(
    series: LoadSeries,
    cutoffs: pd.DataFrame,
    steps: int,
    target: str,
    holidays: Holidays | None,
    *,
    contest: bool,
) -> "tuple[pd.DataFrame, Backtest | None]":
    """Return the forecasts; in a contest every contestant forecasts too, and the page's content is made."""
    from training.backtest import backtest as run_backtest
    from training.contest import contest as run_contest

    with progress_report() as report:
        if not contest:
            forecasts = run_backtest(
                series,
                cutoffs,
                horizon_steps=steps,
                target=target,
                progress=report,
                holidays=holidays,
            )
            return forecasts, None
        forecasts, held, importances = run_contest(
            series,
            cutoffs,
            horizon_steps=steps,
            target=target,
            progress=report,
            holidays=holidays,
        )
    from autoscaler.pages.backtest import Backtest

    return forecasts, Backtest(held, series, target, importances)


def _write_page(path: Path, held: "Backtest", name: str, source: Path) -> None:
    from autoscaler.pages.backtest import render

    try:
        page = render(held, name=name)
    except ValueError as error:
        raise FrameError(f"{source}: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    log.info("%s: the report, %d cutoffs", path, len(held.contest.row))


def _read_cutoffs(path: Path) -> pd.DataFrame:
    from training.telemetry import read_frame

    return read_frame(path, _validate_cutoffs)


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
