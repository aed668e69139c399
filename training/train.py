"""Telemetry in, models out: learn each part, compare it with what serves, write the registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.artifact import Generation
from models.frames import FrameError, LoadSeries, to_series
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel
from models.load_model import LoadModel
from models.mix_model import MixModel
from models.progress import Progress
from training.demand import without_outages
from training.gate import Verdict, crop, judge_load, judged_from, summary_of
from training.holiday_names import Asked
from training.registry import write_generation
from training.telemetry import Telemetry, read_telemetry


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run did: the generation that now serves, and the account of it."""

    generation: str
    summary: Mapping[str, Any]


def train(
    telemetry_dir: Path,
    models_dir: Path,
    *,
    incumbent: Generation | None = None,
    profiles: Mapping[tuple[str, str], str] | None = None,
    roles: Mapping[tuple[str, str], str] | None = None,
    holidays: Asked | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Learn from a telemetry folder and promote what beats what is there.

    For (service, variant): `profiles`, the shipped profile that its latency fit begins with, and `roles`,
    the phase that it serves where prefill and decode are apart. `holidays` of which place count, if any.
    Raises FrameError on telemetry that cannot be used and RegistryError if the registry cannot be
    written; in both cases what served before still serves.
    """
    telemetry = read_telemetry(telemetry_dir)
    where = str(telemetry_dir / "load.parquet")
    series, outages = without_outages(to_series(telemetry.load, where), telemetry.serving)
    free = None if holidays is None else holidays.over(series)
    try:
        load = LoadModel.fit(series, target="requests", progress=progress, holidays=free)
    except ValueError as error:
        raise FrameError(f"{where}: {error}") from error
    latency = LatencyModel.fit(telemetry.serving, profiles=profiles, roles=roles, progress=progress)
    latency, latency_verdict = plausible_latency(latency, telemetry.serving.empty, incumbent)
    lead_time = LeadTimeModel.fit(telemetry.startups, end_seconds=series.end_seconds)
    mix = MixModel.fit(series)
    load_files, load_verdict = _gated_load(load, series, incumbent, progress)
    files = {
        **_named("load", load_files),
        **_named("latency", latency.to_files()),
        **_named("lead_time", lead_time.to_files()),
        **_named("mix", mix.to_files()),
    }
    summary = {
        "trained_until_seconds": _trained_until(series, incumbent, load_verdict),
        "step_seconds": series.step_seconds,
        "missing_files": list(telemetry.missing),
        "mended": list(telemetry.mended),
        "outage_steps": outages,
        "holidays": None if holidays is None else {"place": holidays.place, "zone": holidays.zone},
        "promotion": {
            "load": summary_of(load_verdict),
            "latency": summary_of(latency_verdict),
            "lead_time": summary_of(_renewed(telemetry.startups.empty)),
            "mix": summary_of(_renewed(empty=False)),
        },
        "services": _services(telemetry, load, mix, latency, lead_time),
    }
    previous = None if incumbent is None else incumbent.name
    name = write_generation(models_dir, files, summary, previous)
    return Trained(name, {"generation": name, "previous": previous, **summary})


def _gated_load(
    challenger: LoadModel,
    series: LoadSeries,
    incumbent: Generation | None,
    progress: Progress | None,
) -> tuple[dict[str, bytes], Verdict]:
    """Return the files of the load model that should serve, and why it is that one."""
    files = challenger.to_files()
    old_files = {} if incumbent is None else incumbent.part("load")
    if incumbent is None or not old_files:
        return files, Verdict(promoted=True, why="nothing served before")
    try:
        old = LoadModel.from_files(old_files)
    except ValueError as error:
        return files, Verdict(promoted=True, why=f"the incumbent cannot be read: {error}")
    if old.step_seconds != challenger.step_seconds:
        return files, Verdict(promoted=True, why="the telemetry's interval has changed")
    unknown = sorted(set(series.services) - set(old.scores))
    if unknown:
        return files, Verdict(promoted=True, why=f"the incumbent does not know {unknown[0]}")
    first = judged_from(float(incumbent.summary.get("trained_until_seconds", np.inf)), series)
    if first is None:
        why = "too little load that the incumbent has not seen to show that the new one is better"
        return dict(old_files), Verdict(promoted=False, why=why)
    try:
        shadow = LoadModel.fit(
            crop(series, first),
            target=challenger.target,
            progress=progress,
            holidays=challenger.holidays,
        )
    except ValueError:  # nothing known before the window: the incumbent knew other days
        return files, Verdict(promoted=True, why="all the load here is newer than the incumbent")
    verdict = judge_load(shadow, old, series, first)
    return (files if verdict.promoted else dict(old_files)), verdict


def _trained_until(series: LoadSeries, incumbent: Generation | None, verdict: Verdict) -> float:
    if verdict.promoted or incumbent is None:
        return series.end_seconds
    return float(incumbent.summary["trained_until_seconds"])


def plausible_latency(
    new: LatencyModel, empty: bool, incumbent: Generation | None
) -> tuple[LatencyModel, Verdict]:
    """Return the latency model that should serve: pairs that leap beyond belief stay as they were."""
    old_files = {} if incumbent is None else incumbent.part("latency")
    if not old_files:
        return new, _renewed(empty)
    try:
        old = LatencyModel.from_files(old_files)
    except ValueError as error:
        return new, Verdict(promoted=True, why=f"the incumbent cannot be read: {error}")
    model = new.after(old)
    leaps = [name for name, score in model.scores.items() if "leap" in score]
    if not leaps:
        return model, _renewed(empty)
    why = f"{leaps[0]}: {model.scores[leaps[0]]['leap']['note']}"
    return model, Verdict(promoted=len(leaps) < len(model.keys), why=why)


def _renewed(empty: bool) -> Verdict:
    why = "no telemetry: the prior serves" if empty else "describes the fleet as it is now"
    return Verdict(promoted=True, why=why)


def _services(
    telemetry: Telemetry,
    load: LoadModel,
    mix: MixModel,
    latency: LatencyModel,
    lead_time: LeadTimeModel,
) -> dict[str, Any]:
    names = set(telemetry.load.service) | set(telemetry.serving.service)
    return {
        name: {
            "load": load.scores.get(name, {"note": "no load telemetry"}),
            "mix": mix.scores.get(name, {"note": "no load telemetry"}),
            "latency": _of_service(latency.scores, name),
            "lead_time": _of_service(lead_time.scores, name),
        }
        for name in sorted(names)
    }


def _of_service(scores: Mapping[str, Any], service: str) -> dict[str, Any]:
    """Return variant -> score from scores keyed by service/variant."""
    prefix = f"{service}/"
    return {k.removeprefix(prefix): v for k, v in scores.items() if k.startswith(prefix)}


def _named(part: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{part}/{name}": data for name, data in files.items()}
