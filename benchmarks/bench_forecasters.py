"""The load model beside simple rules and classical forecasters, on the same cutoffs of the same load.

    python benchmarks/bench_forecasters.py                        the trace that the project ships
    python benchmarks/bench_forecasters.py --load telemetry/      your own services
    python benchmarks/bench_forecasters.py --public FOLDER --write docs/forecasting.md
    python benchmarks/bench_forecasters.py --public FOLDER --leave-out

Losses are pinball losses over P10 to P99 and all steps ahead, as a share of a series' mean load. Times
are CPU seconds. Rivals come with the extra `bench`; those not installed are left out. --write puts the
tables between the marks of a page; --leave-out shows how the global model does on services that it
never saw.
"""

import argparse
import hashlib
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from forecast_rivals import Rival, filled, ordered, rivals
from forecast_series import public, shipped, telemetry

from models.features import DAY_SECONDS, Grid
from models.forecast_account import cutoff_losses
from models.frames import LoadSeries
from models.load_model import LoadModel
from models.losses import coverage_ratio
from models.quantiles import QUANTILES, FloatArray
from training.backtest import backtest

OURS = "Foreserve"
MARKS = "<!-- bench_forecasters{}: begin -->", "<!-- bench_forecasters{}: end -->"
P90 = QUANTILES.index(0.9)
LEFT_OUT_GROUPS = 3


@dataclass(frozen=True)
class Plan:
    """Which steps of which series are forecast, (N,) each, and what came, (N, H)."""

    series: LoadSeries
    values: FloatArray  # (S, T)
    row: np.ndarray
    step: np.ndarray  # last known step
    actual: FloatArray
    judged_days: float

    @property
    def horizon(self) -> int:
        return self.actual.shape[1]


@dataclass(frozen=True)
class Result:
    name: str
    quantiles: FloatArray  # (N, H, Q)
    fit_seconds: float  # CPU, a series
    predict_seconds: float  # CPU, a cutoff of one series
    note: str


def plan_of(series: LoadSeries, days: float, every: int, horizon: int) -> Plan:
    values = series.values[:, :, 0]
    grid = Grid(series.step_seconds)
    rows, steps = [], []
    for s, own in enumerate(values):
        known = np.flatnonzero(np.isfinite(own))
        first = max(known[-1] - round(days * grid.day_steps), known[0] + grid.day_steps + 1)
        at = np.arange(first, known[-1] - horizon + 1, every)
        at = at[np.isfinite(own[at])]
        rows += [s] * at.size
        steps += list(at)
    row, step = np.array(rows), np.array(steps)
    actual = values[row[:, None], step[:, None] + np.arange(1, horizon + 1)]
    return Plan(series, values, row, step, actual, days)


def main() -> int:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = ask.add_mutually_exclusive_group()
    source.add_argument("--load", type=Path, help="telemetry folder or load.parquet")
    source.add_argument("--public", type=Path, help="folder of public series")
    ask.add_argument("--step-minutes", type=int, default=10)
    ask.add_argument("--days", type=float, default=3.0, help="judged, at the end of each series")
    # 130 minutes: cutoffs wander through the hour, and through its bursts
    ask.add_argument("--every-steps", type=int, default=13)
    ask.add_argument("--horizon-steps", type=int, default=3)
    ask.add_argument("--write", type=Path, help="page whose tables are renewed")
    ask.add_argument(
        "--keep", type=Path, help="folder that keeps the rivals' forecasts for the next run"
    )
    ask.add_argument("--leave-out", action="store_true")
    args = ask.parse_args()
    if args.load is not None:
        series = telemetry(args.load, args.step_minutes)
    elif args.public is not None:
        series = public(args.public, args.step_minutes)
    else:
        series = shipped(args.step_minutes)
    plan = plan_of(series, args.days, args.every_steps, args.horizon_steps)
    if args.leave_out:
        text = leave_out(plan)
    else:
        others = [kept(args.keep, plan, r) for r in rivals(_grid(plan).day_steps)]
        text = tables(plan, [foreserve(plan), *others])
    print(text)
    if args.write is not None:
        put_between_marks(args.write, text, " leave-out" if args.leave_out else "")
    return 0


def foreserve(plan: Plan) -> Result:
    """The whole backtest, refitted at midnights; one fit and one forecast of all are timed apart."""
    series = plan.series
    seconds = series.start_seconds + plan.step * series.step_seconds
    cutoffs = pd.DataFrame(
        {
            "service": np.array(series.services, dtype=object)[plan.row],
            "cutoff": pd.to_datetime(seconds, unit="s", utc=True),
        }
    )
    said(f"{OURS}: {len(cutoffs)} cutoffs")
    got = backtest(series, cutoffs, horizon_steps=plan.horizon, target="requests")
    quantiles = got.yhat.to_numpy().reshape(*plan.actual.shape, len(QUANTILES))
    services = len(series.services)
    fit_seconds, model = timed(
        lambda: LoadModel.fit(series, leads_steps=range(1, plan.horizon + 1))
    )
    past = series.values[:, -model.history_steps :, 0]
    predict_seconds, _ = timed(lambda: model.forecast(series.services, past, series.end_seconds))
    note = "one model of all series, refitted at midnights"
    return Result(OURS, quantiles, fit_seconds / services, predict_seconds / services, note)


def kept(folder: Path | None, plan: Plan, contestant: Rival) -> Result:
    """A rival's result, from the folder if the same forecasts were made before."""
    if folder is None:
        return rival(plan, contestant)
    key = hashlib.sha256(contestant.name.encode() + contestant.note.encode())
    for part in (plan.values, plan.row, plan.step, plan.actual):
        key.update(np.ascontiguousarray(part).tobytes())
    path = folder / f"{contestant.name.replace(' ', '-')}-{key.hexdigest()[:12]}.npz"
    if not path.exists():
        found = rival(plan, contestant)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = np.array([found.fit_seconds, found.predict_seconds])
        np.savez(path, quantiles=found.quantiles, seconds=seconds)
    with np.load(path) as file:
        quantiles, (fit, predict) = file["quantiles"], file["seconds"]
    return Result(contestant.name, quantiles, float(fit), float(predict), contestant.note)


def rival(plan: Plan, contestant: Rival) -> Result:
    said(contestant.name)
    day_steps = _grid(plan).day_steps
    fitted: dict[tuple[int, int], object] = {}
    fit_seconds = predict_seconds = 0.0
    out = []
    for row, step in zip(plan.row, plan.step, strict=True):
        until = _midnight(plan, row, step)
        y = filled(plan.values[row, : step + 1])
        if (row, until) not in fitted:
            known = filled(plan.values[row, :until])
            spent, model = timed(lambda: contestant.fit(known, day_steps))  # noqa: B023
            fitted[row, until] = model
            fit_seconds += spent
        spent, got = timed(lambda: contestant.predict(fitted[row, until], y, plan.horizon))  # noqa: B023
        predict_seconds += spent
        out.append(got)
    return Result(
        contestant.name,
        ordered(out),
        fit_seconds / len(fitted),
        predict_seconds / len(out),
        contestant.note,
    )


def _midnight(plan: Plan, row: int, step: int) -> int:
    """Steps known at the last midnight; those up to the cutoff where that is less than a day's."""
    series = plan.series
    end = series.start_seconds + (step + 1) * series.step_seconds
    midnight = np.floor(end / DAY_SECONDS) * DAY_SECONDS
    until = int((midnight - series.start_seconds) // series.step_seconds)
    known = np.isfinite(plan.values[row, :until]).sum()
    return until if known >= _grid(plan).day_steps else int(step) + 1


def _grid(plan: Plan) -> Grid:
    return Grid(plan.series.step_seconds)


def ratios_of(plan: Plan, quantiles: FloatArray) -> FloatArray:
    """Loss of each series over its mean load, (S,)."""
    losses = cutoff_losses(plan.actual, quantiles)
    out = []
    for s in range(len(plan.series.services)):
        mine = plan.row == s
        out.append(np.nanmean(losses[mine]) / np.nanmean(plan.actual[mine]))
    return np.array(out)


def tables(plan: Plan, results: list[Result]) -> str:
    """One table of the contestants, one of the series, in Markdown."""
    ratios = {r.name: ratios_of(plan, r.quantiles) for r in results}
    ours = ratios[OURS]
    lines = [_about(plan), "", *_contestant_rows(plan, results, ratios), ""]
    lines += [f"- {r.name}: {r.note}." for r in results]
    names = [r.name for r in results]
    lines += ["", "Loss as a share of the mean load, series by series; the least is bold:", ""]
    lines += ["| series | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for s, service in enumerate(plan.series.services):
        least = min(ratios[n][s] for n in names)
        cells = [
            f"**{100 * ratios[n][s]:.1f} %**"
            if ratios[n][s] == least
            else f"{100 * ratios[n][s]:.1f} %"
            for n in names
        ]
        lines.append(f"| {service} | " + " | ".join(cells) + " |")
    beaten = [
        f"{plan.series.services[s]} ({names[k]}, {ours[s] / ratios[names[k]][s]:.2f} times its loss)"
        for s in range(len(ours))
        for k in [int(np.argmin([ratios[n][s] for n in names]))]
        if names[k] != OURS
    ]
    lines += [
        "",
        "Where another is better: " + ("; ".join(beaten) if beaten else "on none of these") + ".",
    ]
    return "\n".join(lines)


def _contestant_rows(plan: Plan, results: list[Result], ratios: dict[str, FloatArray]) -> list[str]:
    lines = [
        "| contestant | loss, × Foreserve's: mean | median | better than Foreserve on | within P90 "
        "| fit, CPU s a series | predict, CPU ms a cutoff |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        relative = ratios[r.name] / ratios[OURS]
        better = "" if r.name == OURS else f"{(relative < 1).sum()} of {relative.size}"
        covered = np.mean(
            [
                coverage_ratio(plan.actual[plan.row == s], r.quantiles[plan.row == s][..., P90])
                for s in range(len(plan.series.services))
            ]
        )
        lines.append(
            f"| {r.name} | {np.exp(np.log(relative).mean()):.2f} | {np.median(relative):.2f} "
            f"| {better} | {100 * covered:.1f} % | {r.fit_seconds:.2f} | {1000 * r.predict_seconds:.1f} |"
        )
    return lines


def _about(plan: Plan) -> str:
    minutes = plan.series.step_seconds / 60
    return (
        f"{len(plan.series.services)} series in steps of {minutes:g} min, {plan.row.size} cutoffs in their "
        f"last {plan.judged_days:g} days, {plan.horizon} steps ahead ({minutes * plan.horizon:g} min). The "
        "mean is geometric, over the series."
    )


def leave_out(plan: Plan) -> str:
    """Fit without a third of the series at a time; forecast those as services never seen."""
    series, leads = plan.series, range(1, plan.horizon + 1)
    first = min(_midnight(plan, r, s) for r, s in zip(plan.row, plan.step, strict=True))
    history = _cropped(series, first)
    said(f"whole fleet, {first} steps")
    whole = _asked(plan, LoadModel.fit(history, leads_steps=leads), series.services)
    unseen = {name: np.full_like(whole["as it serves"], np.nan) for name in whole}
    group = np.arange(len(series.services)) % LEFT_OUT_GROUPS
    for g in range(LEFT_OUT_GROUPS):
        said(f"without {', '.join(np.array(series.services)[group == g])}")
        keep = np.flatnonzero(group != g)
        model = LoadModel.fit(_of(history, keep), leads_steps=leads)
        got = _asked(plan, model, [f"unseen/{name}" for name in series.services])
        mine = group[plan.row] == g
        for name, quantiles in got.items():
            unseen[name][mine] = quantiles[mine]
    base = ratios_of(plan, whole["last-value"])
    lines = [
        _about(plan) + f" One fit, on the {first} steps before the first judged day; no refits.",
        "",
        "| loss, × last value with its own errors | geometric mean | worst series | within P90, mean |",
        "| --- | ---: | ---: | ---: |",
    ]
    for label, found in (("seen", whole), ("never seen", unseen)):
        for name, quantiles in found.items():
            relative = ratios_of(plan, quantiles) / base
            covered = coverage_ratio(plan.actual, quantiles[..., P90])
            lines.append(
                f"| {name}, {label} | {np.exp(np.log(relative).mean()):.3f} | {relative.max():.2f} "
                f"({series.services[int(relative.argmax())]}) | {100 * covered:.1f} % |"
            )
    return "\n".join(lines)


def _asked(
    plan: Plan, model: LoadModel, names: "list[str] | tuple[str, ...]"
) -> dict[str, FloatArray]:
    """Forecasts (N, H, Q) as the model serves, by the global one alone and by the last value alone."""
    wanted = {"as it serves": model}
    for candidate in ("lightgbm", "last-value"):
        if candidate in model.candidates:
            wanted[candidate] = model.served_by(candidate)
    out = {name: np.full((*plan.actual.shape, len(QUANTILES)), np.nan) for name in wanted}
    for step in np.unique(plan.step):
        here = np.flatnonzero(plan.step == step)
        rows = plan.row[here]
        past = plan.values[rows, max(0, step + 1 - model.history_steps) : step + 1]
        end = plan.series.start_seconds + (step + 1) * plan.series.step_seconds
        for name, served in wanted.items():
            out[name][here] = served.forecast([names[r] for r in rows], past, end).values
    return out


def _cropped(series: LoadSeries, steps: int) -> LoadSeries:
    return LoadSeries(
        series.services, series.start_seconds, series.step_seconds, series.values[:, :steps]
    )


def _of(series: LoadSeries, rows: np.ndarray) -> LoadSeries:
    names = tuple(series.services[r] for r in rows)
    return LoadSeries(names, series.start_seconds, series.step_seconds, series.values[rows])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process and its children (Prophet's solver is one), and the result."""
    before = _cpu_seconds()
    result = work()
    return _cpu_seconds() - before, result


def _cpu_seconds() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def put_between_marks(page: Path, text: str, which: str) -> None:
    """Replace what stands between the marks of a page."""
    begin, end = (mark.format(which) for mark in MARKS)
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def said(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
