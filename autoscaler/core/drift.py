"""Follow each variant's drift from its fitted latency, for all services at once (models.latency_drift)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.core.outcome import FloatArray, Forecasts, PaceDrift, ServiceState, State
from autoscaler.core.types import Observation, Policies, Role, ServiceObservation, Variant
from models.latency import LatencyModel
from models.latency_drift import TOLD_WINDOWS, Drift, expected_tpot_p50, factor, followed
from models.step_time import request_work

ROUND = 5  # decimals of what is remembered


@dataclass(frozen=True, slots=True)
class _Lane:
    service: str
    variant: str
    profile: str | None
    role: Role
    drift: PaceDrift
    seen: tuple[float, ...]  # rate and running per replica, replicas, isl, osl, TPOT p50, requests


def follow_drift(
    policies: Policies, forecasts: Forecasts, state: State, observation: Observation
) -> dict[str, dict[str, PaceDrift]]:
    """Return the drifts of every service that shows its TPOT, after this observation."""
    lanes = [
        _Lane(name, v.name, v.profile_ref, v.role, _known(state, name, v.name), numbers)
        for name, observed in observation.services.items()
        if name in policies.services
        for v in policies.services[name].variants
        if (numbers := _numbers(observed, v)) is not None
    ]
    if not lanes:
        return {}
    after = _after(forecasts.latency, lanes)
    new: dict[str, dict[str, PaceDrift]] = {}
    for lane, numbers in zip(lanes, after.T.tolist(), strict=True):
        before = state.services.get(lane.service)
        kept = new.setdefault(lane.service, {} if before is None else dict(before.drifts))
        kept[lane.variant] = PaceDrift(*(round(x, ROUND) for x in numbers))
    return new


def with_drifts(state: State, drifts: Mapping[str, Mapping[str, PaceDrift]]) -> State:
    """Return the state with these drifts remembered."""
    known = state.services
    new = {n: replace(known.get(n, ServiceState()), drifts=d) for n, d in drifts.items()}
    return State({**known, **new})


def factors(drifts: list[PaceDrift]) -> FloatArray:
    """Return what each engine's step times are to be multiplied with."""
    return factor(_stacked(drifts))


def in_words(drifts: Mapping[str, PaceDrift]) -> str:
    """Return a sentence where windows are off beyond belief for long, else an empty text."""
    odd = [name for name, d in sorted(drifts.items()) if d.odd_windows >= TOLD_WINDOWS]
    if not odd:
        return ""
    return f"; tokens of {', '.join(odd)} take over 3 times or under a third of what was fitted: not believed"


def _after(latency: LatencyModel, lanes: list[_Lane]) -> FloatArray:
    pairs = [(lane.service, lane.variant) for lane in lanes]
    c = latency.coefficients(pairs, [lane.profile for lane in lanes])
    rate, running, replicas, isl, osl, tpot, requests = np.array([lane.seen for lane in lanes]).T
    decodes = np.array([lane.role is Role.DECODE for lane in lanes])
    prompts = np.where(decodes, 0.0, c.per_prompt_token_seconds)  # another variant computes them
    work = request_work(replace(c, per_prompt_token_seconds=prompts), isl, osl)
    with np.errstate(invalid="ignore", divide="ignore"):
        learned = latency.correction(pairs, isl, osl)
        off = np.log(tpot / expected_tpot_p50(c, work, rate, running, replicas, learned))
    after = followed(_stacked([lane.drift for lane in lanes]), off, requests)
    return np.stack(np.broadcast_arrays(after.log_factor, after.windows, after.odd_windows))


def _stacked(drifts: list[PaceDrift]) -> Drift:
    rows = np.array([(d.log_factor, d.windows, d.odd_windows) for d in drifts]).reshape(-1, 3)
    return Drift(*rows.T)


def _known(state: State, service: str, variant: str) -> PaceDrift:
    known = state.services.get(service)
    return PaceDrift() if known is None else known.drifts.get(variant, PaceDrift())


def _numbers(observed: ServiceObservation, variant: Variant) -> tuple[float, ...] | None:
    """Return what a variant shows of its steps; None where it shows no batch or no TPOT."""
    v = observed.variants.get(variant.name)
    if v is None or v.ready < 1 or variant.role is Role.PREFILL:
        return None
    ready = sum(o.ready for o in observed.variants.values())
    seen = (
        observed.arrival_rate_rps / ready,
        v.running / v.ready,
        float(v.ready),
        observed.isl_tokens,
        observed.osl_tokens,
        v.tpot_p50_seconds,
        v.finished_requests,
    )
    good = all(math.isfinite(x) and x > 0 for x in seen[:-1])
    return seen if good else None
