"""`foreserve backtest`: forecasts at given cutoffs, for others to score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from autoscaler.cli.common import log, progress_report, result_console, write_json
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import (
    HolidaysOf,
    HolidaysZone,
    StoreRules,
    StoreService,
    StoreVariant,
    telemetry_folder,
)
from models.forecast_account import Contest, ServiceAccount, account_of
from models.frames import LOAD_NUMBERS, FrameError, LoadSeries, to_series
from models.holiday_calendar import Holidays
from models.mix_drift import DriftSpan
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE, Identity
from models.quantiles import QUANTILES

EXAMPLE = """
Forecast from given cutoffs, each with only what was known then, and write the quantiles.

**Examples**

    foreserve backtest --load load.parquet --cutoffs cutoffs.parquet --horizon-steps 6 \\
                       --target requests --out forecasts.parquet

How good are the forecasts of my services? A page about the last week (docs/forecasting.md):

    foreserve backtest --load telemetry/ --report backtest.html --json backtest.json

A class of traffic that drifted, in its share of the requests or in its lengths, is printed.
"""
MAX_HORIZON_STEPS = 2880
USUAL_HORIZON_SECONDS = 1800.0
Held = tuple[Contest, dict[str, float]]  # and the feature importances


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
    json: Annotated[
        Path | None, typer.Option(help="The page's figures for machines (JSON).")
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
    from training.mix_drifts import mix_drifts

    if target not in LOAD_NUMBERS:
        raise typer.BadParameter(
            f"{target!r}; allowed: {', '.join(LOAD_NUMBERS)}", param_hint="--target"
        )
    if out is None and report is None and json is None:
        raise typer.BadParameter(
            "missing; allowed: a file, or --report or --json", param_hint="--out"
        )
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
    judged = report is not None or json is not None
    try:
        forecasts, held = _run(series, asked, steps, target, free, contest=judged)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            forecasts.to_parquet(out, index=False)
            log.info("%s: %d forecasts at %d cutoffs", out, len(forecasts), len(asked))
        drifts = mix_drifts(series, asked)
        if drifts:
            result_console().print(drift_table(drifts))
        if held is not None and json is not None:
            write_json(json, document_of(held[0], drifts, target))
        if held is not None and report is not None:
            _write_page(report, series, target, held, drifts, name=load.name)
    except ValueError as error:
        raise FrameError(f"{source}: {error}") from error


def drift_table(drifts: Sequence[DriftSpan]) -> Table:
    """Return one row per service and class that drifted."""
    table = Table(title="The mix of requests drifted")
    for heading in ("Service", "At cutoffs", "From (UTC)", "Until (UTC)", "What was told last"):
        table.add_column(heading, justify="right" if heading == "At cutoffs" else "left")
    for span in drifts:
        table.add_row(
            escape(span.service),
            f"{span.moments} of {span.looked_at}",
            f"{pd.Timestamp(span.first_seconds, unit='s'):%d %b %H:%M}",
            f"{pd.Timestamp(span.last_seconds, unit='s'):%d %b %H:%M}",
            span.sentence,
        )
    return table


def document_of(contest: Contest, drifts: Sequence[DriftSpan], target: str) -> dict[str, Any]:
    """Return what the page says, for machines; what is not known is null."""
    asked = [contest.services[row] for row in sorted(set(contest.row.tolist()))]
    accounts = [account_of(contest, name) for name in asked]
    return {
        "target": target,
        "horizon_steps": contest.actual.shape[1],
        "cutoffs": len(contest.row),
        "services": {a.service: _figures(a) for a in accounts if a is not None},
        "mix_drifts": [
            {
                "service": span.service,
                "class": dict(zip(("isl_tokens", "osl_tokens"), span.lengths, strict=True)),
                "what": span.what,
                "cutoffs": span.moments,
                "cutoffs_looked_at": span.looked_at,
                "first_seconds": span.first_seconds,
                "last_seconds": span.last_seconds,
                "sentence": span.sentence,
            }
            for span in drifts
        ],
    }


def _figures(account: ServiceAccount) -> dict[str, Any]:
    return {
        "cutoffs": account.cutoffs,
        "mean_load": account.mean_load,
        "pinball_loss_ratio": account.loss_ratio,
        "times_last_value": account.to_last_value.value,
        "times_best_rule": account.to_best_rule.value,
        "best_rule": account.best_rule,
        "coverage_ratio": dict(zip(map(str, QUANTILES), account.coverage.tolist(), strict=True)),
        "contestants": dict(account.contestants),
        "served_by": dict(account.served_by),
    }


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
) -> tuple[pd.DataFrame, Held | None]:
    """Return the forecasts; in a contest every contestant forecasts too."""
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
    return forecasts, (held, importances)


def _write_page(
    path: Path,
    series: LoadSeries,
    target: str,
    held: Held,
    drifts: Sequence[DriftSpan],
    *,
    name: str,
) -> None:
    from autoscaler.pages.backtest import Backtest, render  # wants bokeh: the extra `report`

    page = render(Backtest(held[0], series, target, held[1], drifts), name=name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    log.info("%s: the report, %d cutoffs", path, len(held[0].row))


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
