"""Follow each variant's drift from its fitted latency, for all services at once (models.latency_drift)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.core.outcome import FloatArray, Forecasts, PaceDrift, State
from autoscaler.core.types import Observation, Policies, Role
from models.latency import LatencyModel
from models.latency_drift import TOLD_WINDOWS, Drift, expected_tpot_p50, factor, followed
from models.step_time import request_work

ROUND = 5  # decimals of what is remembered


@dataclass(frozen=True, slots=True)
class _Lanes:
    """What N (service, variant) pairs show of their steps, and how each departed before."""

    pairs: list[tuple[str, str]]
    profiles: list[str | None]
    decode_only: list[bool]
    drifts: list[PaceDrift]
    seen: FloatArray  # (N, 7): rate and running per replica, replicas, isl, osl, TPOT p50, requests


def follow_drift(
    policies: Policies, forecasts: Forecasts, state: State, observation: Observation
) -> dict[str, dict[str, PaceDrift]]:
    """Return the drifts of every service that shows its TPOT, after this observation."""
    lanes = _lanes(policies, state, observation)
    if not lanes.pairs:
        return {}
    after = _after(forecasts.latency, lanes)
    new: dict[str, dict[str, PaceDrift]] = {}
    for (service, variant), drift in zip(lanes.pairs, after, strict=True):
        kept = new.get(service)
        if kept is None:
            before = state.services.get(service)
            kept = new[service] = {} if before is None else dict(before.drifts)
        kept[variant] = drift
    return new


def factors(drifts: list[PaceDrift]) -> FloatArray:
    """Return what each engine's step times are to be multiplied with."""
    return factor(_stacked(drifts))


def in_words(drifts: Mapping[str, PaceDrift]) -> str:
    """Return a sentence where windows are off beyond belief for long, else an empty text."""
    odd = [name for name, d in drifts.items() if d.odd_windows >= TOLD_WINDOWS]
    if not odd:
        return ""
    names = ", ".join(sorted(odd))
    return (
        f"; tokens of {names} take over 3 times or under a third of what was fitted: not believed"
    )


def _lanes(policies: Policies, state: State, observation: Observation) -> _Lanes:
    """Return the pairs that show a batch and its TPOT; no other says anything of its steps."""
    pairs, profiles, decode_only, drifts, seen = [], [], [], [], []
    for name, observed in observation.services.items():
        policy = policies.services.get(name)
        ready = sum([o.ready for o in observed.variants.values()])
        if policy is None or ready < 1:
            continue
        rate, isl, osl = observed.arrival_rate_rps / ready, observed.isl_tokens, observed.osl_tokens
        known = state.services.get(name)
        for variant in policy.variants:
            v = observed.variants.get(variant.name)
            if v is None or v.ready < 1 or variant.role is Role.PREFILL:
                continue
            drift = None if known is None else known.drifts.get(variant.name)
            pairs.append((name, variant.name))
            profiles.append(variant.profile_ref)
            decode_only.append(variant.role is Role.DECODE)
            drifts.append(PaceDrift() if drift is None else drift)
            running, tpot = v.running / v.ready, v.tpot_p50_seconds
            seen.append((rate, running, float(v.ready), isl, osl, tpot, v.finished_requests))
    numbers = np.array(seen, dtype=np.float64).reshape(-1, 7)
    good = (np.isfinite(numbers) & (numbers > 0))[:, :-1].all(axis=1)
    at = np.flatnonzero(good).tolist()
    return _Lanes(
        [pairs[i] for i in at],
        [profiles[i] for i in at],
        [decode_only[i] for i in at],
        [drifts[i] for i in at],
        numbers[good],
    )


def _after(latency: LatencyModel, lanes: _Lanes) -> Iterator[PaceDrift]:
    c = latency.coefficients(lanes.pairs, lanes.profiles)
    rate, running, replicas, isl, osl, tpot, requests = lanes.seen.T
    prompts = np.where(lanes.decode_only, 0.0, c.per_prompt_token_seconds)  # another computes them
    work = request_work(replace(c, per_prompt_token_seconds=prompts), isl, osl)
    with np.errstate(invalid="ignore", divide="ignore"):
        learned = latency.correction(lanes.pairs, isl, osl)
        off = np.log(tpot / expected_tpot_p50(c, work, rate, running, replicas, learned))
    after = followed(_stacked(lanes.drifts), off, requests)
    columns = (after.log_factor, after.windows, after.odd_windows)
    return map(PaceDrift, *[np.round(np.asarray(c), ROUND).tolist() for c in columns])


def _stacked(drifts: list[PaceDrift]) -> Drift:
    rows = np.array([(d.log_factor, d.windows, d.odd_windows) for d in drifts]).reshape(-1, 3)
    return Drift(*rows.T)
