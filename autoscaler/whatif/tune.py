"""A policy's few knobs, picked by simulated cost on the user's own history, and checked on later hours.

Every knob is varied alone, then what helped is tried together, all on the fit hours; the best of them runs
once more beside today's settings on the validation hours that follow, which no choice has seen. Differences
are of pairs: the same requests, engines and start-up times under two settings, block of hours by block, so
that what both share cancels. A mean difference within two standard errors is noise and changes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autoscaler.core.types import Policies, Policy, ScalingLimit
from autoscaler.edge.artifacts import load_models
from autoscaler.edge.policy_files import load_policies
from autoscaler.whatif.arrivals import Arrivals, read_arrivals
from autoscaler.whatif.cache import RunCache
from autoscaler.whatif.case import (
    Case,
    build_case,
    drawn_engines,
    fitted_engines,
    judged_window,
    measured_engines,
    priced,
)
from autoscaler.whatif.compare import FLUID
from autoscaler.whatif.history import FILES, write_load
from autoscaler.whatif.learning import (
    TRAINING,
    Learned,
    Learner,
    is_load_only,
    learn_from_telemetry,
    learn_from_trace,
)
from autoscaler.whatif.pool import Held, Pool, Train, hold
from autoscaler.whatif.results import Measures
from autoscaler.whatif.run import Driven
from autoscaler.whatif.scenario import Scenario, ScenarioError
from models.progress import Progress

RUNS = "simulated runs"  # what the progress speaks of
HOUR_SECONDS = 3600.0
DAY_HOURS = 24.0
VALIDATION_SHARE = (
    1.0 / 3.0
)  # of the judged hours, the last of them; whole days where there are two
FEWEST_HOURS = 6.0
BLOCK_SECONDS = (
    2 * HOUR_SECONDS
)  # one pair of values: long enough that blocks hardly know each other
FEWEST_BLOCKS = 4
SURE_ERRORS = 2.0  # standard errors, beyond which a difference is none of chance
AIM_SHARES = (0.7, 1.4)  # of the misses that are allowed
SETTLE_DOWN_SECONDS = (60.0, 300.0, 900.0)
SETTLE_UP_SECONDS = (0.0, 60.0)
GENTLE = (ScalingLimit(percent=True, value=10.0, period_seconds=60.0),)  # of a scale-down


@dataclass(frozen=True, slots=True)
class Knobs:
    """What is tuned. `aim`: the attainment that the controller is told; it is judged by what was asked."""

    aim: float
    settle_down_seconds: float
    settle_up_seconds: float
    down_limits: tuple[ScalingLimit, ...]

    @classmethod
    def of(cls, policy: Policy) -> "Knobs":
        """Return a policy's own settings."""
        behavior = policy.behavior
        return cls(
            policy.attainment,
            behavior.scale_down.stabilization_window_seconds,
            behavior.scale_up.stabilization_window_seconds,
            behavior.scale_down.limits,
        )

    def apply(self, policy: Policy) -> Policy:
        """Return the policy with these settings."""
        up, down = policy.behavior.scale_up, policy.behavior.scale_down
        behavior = replace(
            policy.behavior,
            scale_up=replace(up, stabilization_window_seconds=self.settle_up_seconds),
            scale_down=replace(
                down,
                stabilization_window_seconds=self.settle_down_seconds,
                limits=self.down_limits,
            ),
        )
        return replace(policy, attainment=self.aim, behavior=behavior)

    def words(self, today: "Knobs") -> str:
        """Return what differs from today's settings, in fields of the policy."""
        said = []
        if self.aim != today.aim:
            said.append(f"slo.attainment {self.aim:g}")
        if self.settle_down_seconds != today.settle_down_seconds:
            said.append(f"scaleDown window {self.settle_down_seconds:g} s")
        if self.settle_up_seconds != today.settle_up_seconds:
            said.append(f"scaleUp window {self.settle_up_seconds:g} s")
        if self.down_limits != today.down_limits:
            said.append("scaleDown " + (_limits(self.down_limits) or "without limits"))
        return ", ".join(said) or "as it is"

    def patch(self, today: "Knobs") -> dict[str, object]:
        """Return the policy's fields that differ, for a merge patch."""
        down: dict[str, object] = {}
        if self.settle_down_seconds != today.settle_down_seconds:
            down["stabilizationWindowSeconds"] = _plain(self.settle_down_seconds)
        if self.down_limits != today.down_limits:
            down["policies"] = [_limit_document(limit) for limit in self.down_limits]
        behavior: dict[str, object] = {"scaleDown": down} if down else {}
        if self.settle_up_seconds != today.settle_up_seconds:
            seconds = _plain(self.settle_up_seconds)
            behavior["scaleUp"] = {"stabilizationWindowSeconds": seconds}
        spec: dict[str, object] = {"behavior": behavior} if behavior else {}
        if self.aim != today.aim:
            spec["slo"] = {"attainment": self.aim}
        return {"spec": spec} if spec else {}


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference in the unit of what is compared, and its standard error; NaN: too few blocks."""

    mean: float
    error: float

    @property
    def sure(self) -> bool:
        """Whether it is more than noise."""
        return abs(self.mean) > SURE_ERRORS * self.error  # False where the error is NaN


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting on one span of hours, beside today's on the same."""

    knobs: Knobs
    measures: Measures
    cost_usd_per_hour: float
    cheaper: Difference  # USD an hour less than today's
    better: Difference  # share of requests within the SLO more than today's


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was tried, and what came of it. `chosen`: today's where nothing better was proved."""

    service: str
    asked: float
    today: Knobs
    chosen: Knobs
    fit: tuple[Tried, ...]  # today's first
    validation: tuple[Tried, ...]  # today's, and the candidate's if there was one
    fit_hours: float
    validation_hours: float
    verdict: str
    notes: tuple[str, ...]


def tune(
    scenario: Scenario,
    service: str | None,
    *,
    work: Path,
    train: Train,
    progress: Progress,
    workers: int | None = None,
) -> Tuned:
    """Tune one service of a scenario; `work` receives what is made for it.

    Raises ScenarioError, PolicyError, FrameError or ArtifactError on inputs that cannot be used.
    """
    policies = priced(load_policies([scenario.policies]), scenario.prices)
    name = _service(scenario, policies, service)
    arrivals = read_arrivals(scenario, [name])
    fit_hours, validation_hours = split(scenario.judged_hours)
    _, until = judged_window(scenario, arrivals)
    early = _until(arrivals, until - validation_hours * HOUR_SECONDS)
    today = Knobs.of(policies.services[name])
    asked = today.aim
    alone = [today, *variations(today)]
    with Pool(workers) as pool:
        bench = _Bench(pool, name, progress, total=len(alone) + 3)  # together, and validation: two
        learner = Learner(train, pool, RunCache(None), progress)
        judged = _judged(scenario, early, fit_hours)
        case, held, learned = _learned(judged, policies, early, work, learner)
        driven = bench.run(held, learned.models, learned.history, alone)
        fit = compared(name, case, driven)
        both = together(fit, asked)
        if both not in alone:
            driven |= bench.run(held, learned.models, learned.history, [both])
            fit = compared(name, case, driven)
        best = pick(fit, asked)
        judged = _judged(scenario, arrivals, validation_hours)
        late = _case(judged, policies, arrivals, learned.models)
        write_load(late, arrivals, work / "validation")
        checked = [today] if best == today else [today, best]
        history = work / "validation" / FILES[0]
        driven = bench.run(hold(late, work / "cases"), learned.models, history, checked)
        validation = compared(name, late, driven)
    chosen, verdict = judge(fit, validation, asked)
    progress(RUNS, bench.total, bench.total)
    notes = (FLUID,) if case.fluid else ()
    return Tuned(
        service=name,
        asked=asked,
        today=today,
        chosen=chosen,
        fit=fit,
        validation=validation,
        fit_hours=fit_hours,
        validation_hours=validation_hours,
        verdict=verdict,
        notes=notes,
    )


@dataclass(slots=True)
class _Bench:
    """Runs of one service's settings in a pool, counted for the progress."""

    pool: Pool
    service: str
    progress: Progress
    total: int
    done: int = 0

    def run(
        self, held: Held, models: Path, history: Path, settings: Sequence[Knobs]
    ) -> dict[Knobs, Driven]:
        """Run every setting; return what each measured, in their order. All are judged alike."""
        waiting: dict[Future[Driven], Knobs] = {}
        for knobs in settings:
            told = dict(held.case.policies.services)
            told[self.service] = knobs.apply(told[self.service])
            policies = replace(held.case.policies, services=told)
            other = replace(held, case=replace(held.case, policies=policies))
            waiting[self.pool.foreserve(other, models, history)] = knobs
        for _ in as_completed(waiting):
            self.done += 1
            self.progress(RUNS, self.done, self.total)
        return {knobs: future.result() for future, knobs in waiting.items()}


def _learned(
    judged: Scenario, policies: Policies, arrivals: Arrivals, work: Path, learner: Learner
) -> tuple[Case, Held, Learned]:
    """Return the case of the fit hours, and what is learned from what precedes them."""
    if judged.telemetry is not None and not is_load_only(judged):
        since, _ = judged_window(judged, arrivals)
        learned = learn_from_telemetry(judged, since, work, learner)
        case = _case(judged, policies, arrivals, learned.models)
        return case, hold(case, work / "cases"), learned
    case = _case(judged, policies, arrivals, None)
    held = hold(case, work / "cases")
    learned = learn_from_trace(held, case, arrivals, work, learner, models=judged.models)
    if learned.training is not None:
        learner.progress(TRAINING, 0, 1)
        learned.training.result()
        learner.progress(TRAINING, 1, 1)
    return case, held, learned


def _case(judged: Scenario, policies: Policies, arrivals: Arrivals, models: Path | None) -> Case:
    mine = replace(policies, services={n: policies.services[n] for n in arrivals.services})
    if judged.profile is not None:
        engines = measured_engines(judged, mine)
    else:
        assert models is not None  # noqa: S101  (a trace without a profile is refused)
        engines = fitted_engines(load_models(models).latency, mine)
    return build_case(judged, mine, arrivals, drawn_engines(judged, engines))


def split(judged_hours: float) -> tuple[float, float]:
    """Return the hours to fit on and those to validate on; whole days where two or more are judged."""
    if judged_hours < FEWEST_HOURS:
        raise ScenarioError(
            f"judgedHours: {judged_hours:g}; allowed: {FEWEST_HOURS:g} or more, to fit and to validate"
        )
    late = judged_hours * VALIDATION_SHARE
    if judged_hours >= 2 * DAY_HOURS:
        late = max(DAY_HOURS, late // DAY_HOURS * DAY_HOURS)
    return judged_hours - late, late


def variations(today: Knobs) -> list[Knobs]:
    """Return today's settings with one knob changed each."""
    missed = 1.0 - today.aim
    aims = [round(1.0 - share * missed, 6) for share in AIM_SHARES]
    out = [replace(today, aim=aim) for aim in aims]
    out += [replace(today, settle_down_seconds=s) for s in SETTLE_DOWN_SECONDS]
    out += [replace(today, settle_up_seconds=s) for s in SETTLE_UP_SECONDS]
    out += [replace(today, down_limits=limits) for limits in ((), GENTLE)]
    return [knobs for knobs in dict.fromkeys(out) if knobs != today]


def compared(service: str, case: Case, driven: Mapping[Knobs, Driven]) -> tuple[Tried, ...]:
    """Return every run beside the first, which is today's."""
    hours = (case.until_seconds - case.since_seconds) / HOUR_SECONDS
    first = next(iter(driven.values()))
    out = []
    for knobs, run in driven.items():
        measures = run.services[service]
        out.append(
            Tried(
                knobs,
                measures,
                measures.cost_usd / hours,
                _cheaper(first, run),
                _better(first, run),
            )
        )
    return tuple(out)


def together(fit: Sequence[Tried], asked: float) -> Knobs:
    """Return today's settings with every change that alone was surely cheaper and still met the SLO."""
    today = fit[0].knobs
    out = today
    for field in ("aim", "settle_down_seconds", "settle_up_seconds", "down_limits"):
        helped = [
            t
            for t in fit[1:]
            if getattr(t.knobs, field) != getattr(today, field) and _meets(t, asked) and _pays(t)
        ]
        if helped:
            best = min(helped, key=lambda t: t.cost_usd_per_hour)
            out = replace(out, **{field: getattr(best.knobs, field)})
    return out


def pick(fit: Sequence[Tried], asked: float) -> Knobs:
    """Return the cheapest setting that meets the SLO: today's unless another one is surely better."""
    today = fit[0]
    meeting = [t for t in fit if _meets(t, asked)]
    if not meeting:  # nothing does: the one that comes closest, if that is no chance
        best = max(fit, key=lambda t: t.measures.slo_attainment_ratio)
        return best.knobs if best.better.sure else today.knobs
    best = min(meeting, key=lambda t: t.cost_usd_per_hour)
    if not _meets(today, asked):
        return best.knobs if best.better.sure else today.knobs
    return best.knobs if _pays(best) else today.knobs


def judge(fit: Sequence[Tried], validation: Sequence[Tried], asked: float) -> tuple[Knobs, str]:
    """Return what to set, and why, after the validation hours."""
    today = fit[0].knobs
    if len(validation) < 2:
        return (
            today,
            "nothing that was tried is better beyond noise on the fit hours: keep it as it is",
        )
    before, after = validation
    saving = after.cheaper.mean / before.cost_usd_per_hour
    if _meets(after, asked) and _pays(after):
        return after.knobs, f"{saving:.1%} cheaper on the validation hours, too, and the SLO is met"
    if not _meets(before, asked) and after.better.sure and after.better.mean > 0:
        share = after.measures.slo_attainment_ratio
        return after.knobs, f"attains more on the validation hours, too: {share:.2%}"
    if not _meets(after, asked):
        return today, "better on the fit hours, but misses the SLO on the validation hours: keep it"
    return today, "better on the fit hours, but within noise on the validation hours: keep it"


def _meets(tried: Tried, asked: float) -> bool:
    return tried.measures.slo_attainment_ratio >= asked


def _pays(tried: Tried) -> bool:
    return tried.cheaper.sure and tried.cheaper.mean > 0


def _cheaper(today: Driven, other: Driven) -> Difference:
    """Return dollars an hour that the other spends less."""
    less = _by_block(today)["cost_usd"] - _by_block(other)["cost_usd"]
    return _difference(less.to_numpy() * HOUR_SECONDS / BLOCK_SECONDS)


def _better(today: Driven, other: Driven) -> Difference:
    """Return the share of requests that the other serves within the SLO and today's settings do not."""
    mine, theirs = _by_block(today), _by_block(other)
    ended = mine["finished_requests"].sum()
    fewer = (mine["missed"] - theirs["missed"]).to_numpy()
    return _difference(fewer * len(fewer) / max(ended, 1.0))  # a block counts by its requests


def _by_block(driven: Driven) -> pd.DataFrame:
    """Return cost_usd, finished_requests and missed of every block of hours that was seen in full."""
    ticks = driven.series
    ends = ticks["ts_seconds"].to_numpy(dtype=np.float64)
    tick = ends[1] - ends[0] if len(ends) > 1 else BLOCK_SECONDS
    block = ((ends - ends[0]) // BLOCK_SECONDS).astype(int)
    share = ticks["slo_attainment_ratio"].fillna(1.0)
    missed = ticks["finished_requests"] * (1.0 - share)
    rows = ticks[["cost_usd", "finished_requests"]].assign(missed=missed)
    whole = rows.groupby(block).sum()
    return whole.iloc[: max(1, int((ends[-1] - ends[0] + tick) // BLOCK_SECONDS))]


def _difference(values: NDArray[np.float64]) -> Difference:
    if len(values) < FEWEST_BLOCKS:
        return Difference(float(values.mean()), math.nan)
    return Difference(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def _limits(limits: Sequence[ScalingLimit]) -> str:
    """Return the limits of a direction in words; empty without any."""
    each = (
        f"{limit.value:g}{' %' if limit.percent else ' replicas'} per {limit.period_seconds:g} s"
        for limit in limits
    )
    return ", ".join(each)


def _limit_document(limit: ScalingLimit) -> dict[str, object]:
    return {
        "type": "Percent" if limit.percent else "Pods",
        "value": _plain(limit.value),
        "periodSeconds": int(limit.period_seconds),
    }


def _plain(value: float) -> float:
    """Return the number as people write it in YAML: 300, not 300.0."""
    return int(value) if value == int(value) else value


def _service(scenario: Scenario, policies: Policies, service: str | None) -> str:
    """Return whose policy is tuned: as asked, the scenario's, or the only one there is."""
    names = sorted(policies.services)
    asked = service or scenario.service
    if asked is None and len(names) == 1:
        return names[0]
    if asked not in names:
        what = (
            "is required where there are several" if asked is None else f"no policy for '{asked}'"
        )
        raise ScenarioError(f"service: {what}; allowed: {', '.join(names)}")
    return asked


def _judged(scenario: Scenario, arrivals: Arrivals, hours: float) -> Scenario:
    """Return the scenario with other judged hours, simulated as all of them would be."""
    simulator = "fluid" if scenario.is_fluid else "steps"
    judged = scenario.model_copy(update={"judged_hours": hours, "simulator": simulator})
    since, _ = judged_window(judged, arrivals)
    if since <= arrivals.start_seconds:
        raise ScenarioError(
            "judgedHours: nothing precedes them, and Foreserve learns from what does; "
            "allowed: fewer hours than the load covers"
        )
    return judged


def _until(arrivals: Arrivals, seconds: float) -> Arrivals:
    """Return what had arrived by a time."""
    start = arrivals.start_seconds
    services = {n: r.between(start, seconds) for n, r in arrivals.services.items()}
    return replace(arrivals, services=services, end_seconds=seconds)
