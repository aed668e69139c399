"""Replicas that each variant alone would need, for all services in one batch.

A newsvendor: the least count whose expected share of requests within the SLO, over the whole
predictive distribution of demand, reaches the target. Where even an idle fleet cannot reach it, the
target is lowered to just below what an idle fleet attains: more replicas than that buy nothing. An
objective that most requests miss on an idle fleet does not steer at all: the count follows from the
others, and from keeping up with the load.

A lane is one (service, variant). Lanes of one role are evaluated together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.assess import Demand, Situation
from autoscaler.core.demand import MIDDLE, MISSES, PROBABILITIES, WEIGHTS
from autoscaler.core.drift import factors
from autoscaler.core.outcome import FloatArray, Forecasts, PaceDrift
from autoscaler.core.types import Policy, Variant
from models import capacity
from models.latency_correction import Correction
from models.latency_drift import at_pace
from models.step_time import Coefficients

LEAST_SEARCH = 64  # a need is searched up to this or twice maxReplicas; beyond it, it is unmet
TINY_RPS = 1e-12
IDLE_RPS = 1e-3  # a load that no queue notices
WHOLE: Mapping[tuple[str, str], float] = {}  # every replica serves all the time
CERTAIN: FloatArray = np.ones(1)  # the weight of a rate that is known
CEILING_SLACK = 0.25  # of the allowed misses, below what an idle fleet attains
NO_DRIFT = PaceDrift()
UNSIZED = (0, 0, 0, 0)  # in the order of Sizes.alone
HOPELESS = 0.5  # an idle fleet's share within an objective, below which replicas cannot help it
LAME = (
    2.0  # times the allowed misses of an idle fleet: what misses more is no equal of what does not
)

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Lanes of one role: what the capacity functions take, shape (n,) each.

    The lengths are those ahead, and so is the correction for them; `now` corrects for those of now.
    """

    index: IntArray
    coefficients: Coefficients
    targets: capacity.TargetArrays
    isl_tokens: FloatArray
    osl_tokens: FloatArray
    correction: Correction | None = None
    now: Correction | None = None

    def attainment(self, rates_rps: FloatArray, replicas: FloatArray) -> FloatArray:
        """Return the share within the SLO at rates (n, K) with replicas (n,), shape (n, K)."""
        return capacity.attainment(
            self.coefficients.expand(),
            rates_rps,
            replicas[:, np.newaxis],
            self.isl_tokens[:, np.newaxis],
            self.osl_tokens[:, np.newaxis],
            self.targets.expand(),
            correction=None if self.correction is None else self.correction.expand(),
        )

    def idle_attainment(self, replicas: IntArray) -> FloatArray:
        """Return (n,) the share within the SLO with next to nothing to serve."""
        idle = np.full((len(self.index), 1), IDLE_RPS)
        return self.attainment(idle, replicas.astype(np.float64))[:, 0]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Needs of N lanes, as counts of that variant alone; K demand points.

    `lanes` holds those whose speed is known. Counts are plain ints: they are read one by one.
    """

    lanes: Mapping[tuple[str, str], int]
    batches: tuple[Batch, ...]
    attainment_target: FloatArray  # (N,)
    idle_attainment: FloatArray  # (N,) what a fleet attains that has next to nothing to serve
    known: NDArray[np.bool_]  # (N,)
    future: list[int]
    hold: list[int]
    present: list[int]
    reactive: list[int]
    measured: list[int]  # by the load measured now, as if it stayed; -1 where none was measured
    future_rps: FloatArray  # (N, K), the demand points at the lead time
    worth: FloatArray  # (N,), the share of the time that a replica serves: 1, on spot a little less
    able: list[bool]  # whether an idle fleet of it meets the SLO, or misses by less than LAME

    def lane(self, service: str, variant: str) -> int | None:
        """Return the lane of a variant, None if it was not sized or its speed is unknown."""
        return self.lanes.get((service, variant))

    def alone(self, policy: Policy) -> dict[str, tuple[int, ...]]:
        """Return what each variant of known speed would need alone: future, hold, present and measured."""
        lanes = {v.name: self.lanes.get((policy.service, v.name)) for v in policy.variants}
        return {
            name: (self.future[i], self.hold[i], self.present[i], self.measured[i])
            for name, i in lanes.items()
            if i is not None
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a chosen count of each of N lanes carries, attains and shows; NaN where it has no replica."""

    carried_rps: list[float]
    attainment: list[float]
    ttft_p95_seconds: list[float]
    tpot_p95_seconds: list[float]


def size_all(
    situations: Sequence[Situation],
    forecasts: Forecasts,
    worth: Mapping[tuple[str, str], float] = WHOLE,
) -> Sizes:
    """Size every variant of every service that has a demand.

    `worth`, by (service, variant): the share of the time that a replica serves, where that is not always. The
    others take its load meanwhile: so much more comes to each.
    """
    variants = [v for s in situations for v in s.policy.variants]
    owners = [s for s in situations for _ in s.policy.variants]
    keys = [(s.policy.service, v.name) for s, v in zip(owners, variants, strict=True)]
    demands = [s.demand for s in owners if s.demand is not None]
    batches = _batches(keys, variants, owners, forecasts)
    most = np.array([_search_limit(v) for v in variants], dtype=np.int64)
    ceiling = _idle_attainment(batches, most)
    steering, reachable = batches, ceiling
    if (ceiling < HOPELESS).any():
        steering = tuple(_without_hopeless(b, most) for b in batches)
        reachable = _idle_attainment(steering, most)
    allowed = np.array([1.0 - s.policy.attainment for s in owners])
    wanted = np.array([s.attainment_target for s in owners])
    short = np.clip(
        (1.0 - allowed - reachable) / allowed, 0.0, 1.0
    )  # 0: an idle fleet meets the SLO
    slack = CEILING_SLACK + (1.0 - CEILING_SLACK) * short
    target = np.minimum(wanted, reachable - slack * allowed)

    serving = np.array([worth.get(key, 1.0) for key in keys])
    points = [_stack([getattr(d, name) for d in demands]) for name in ("future", "hold", "present")]
    now = np.array([(d.isl_tokens, d.osl_tokens) for d in demands]).reshape(-1, 2)
    later = np.array([(d.ahead_isl_tokens, d.ahead_osl_tokens) for d in demands]).reshape(-1, 2)
    mixes = np.stack([later, np.maximum(now, later), now])  # what runs may be needed for either
    loads = np.stack(points) / serving[:, np.newaxis]
    aims = _overload_counted(loads, target, reachable)
    guesses = _last_time(keys, owners)
    ahead = (True, True, False)
    found = _required(steering, loads, mixes, ahead, MISSES, aims, most, guesses[:3])
    reactive_rps = np.array([d.reactive_rps for d in demands]) / serving
    rates = np.array([reactive_rps, [d.measured_rps for d in demands]])
    certain = _required(
        steering,
        rates[..., None],
        np.stack([now, now]),
        (False, False),
        CERTAIN,
        np.stack([target, target]),
        most,
        guesses[3:],
    )
    known = found[0] >= 0
    future, hold, present = found.tolist()
    reactive, measured = certain.tolist()
    return Sizes(
        lanes={key: i for i, (key, ok) in enumerate(zip(keys, known, strict=True)) if ok},
        batches=batches,
        attainment_target=target,
        idle_attainment=ceiling,
        known=known,
        future=future,
        hold=hold,
        present=present,
        reactive=reactive,
        measured=measured,
        future_rps=points[0],
        worth=serving,
        able=(ceiling >= 1.0 - LAME * allowed).tolist(),
    )


def evaluate(sizes: Sizes, counts: FloatArray, share: FloatArray) -> Evaluation:
    """Evaluate counts (N,) that each serve a share (N,) of their service's load.

    Attainment is expected over the demand at the lead time; latency is at that demand's median.
    """
    used = sizes.known & (counts > 0)
    n = np.where(used, counts, 1.0)
    rates = np.maximum(IDLE_RPS, sizes.future_rps * share[:, np.newaxis])
    loads = rates / sizes.worth[:, np.newaxis]  # as if only those counted that serve at the moment
    weights, misses = WEIGHTS * rates, MISSES * rates
    out = np.full((4, len(used)), np.nan)
    for b in sizes.batches:
        at, w = b.index, weights[b.index]
        got = b.attainment(loads[at], n[at])
        out[2, at], out[3, at] = capacity.predicted_p95(
            b.coefficients,
            loads[at, MIDDLE],
            n[at],
            b.isl_tokens,
            b.osl_tokens,
            role=b.targets.role,
            correction=b.correction,
        )
        out[0, at] = _carried(rates[at], got, sizes.attainment_target[at])
        missed = (w * (1.0 - got)).sum(axis=1)
        beyond = np.maximum(sizes.idle_attainment[at, np.newaxis] - got, 0.0)
        missed += ((misses[at] - w) * beyond).sum(axis=1)
        out[1, at] = 1.0 - np.minimum(missed / w.sum(axis=1), 1.0)
    return Evaluation(*np.where(used, out, np.nan).tolist())


def _carried(rates: FloatArray, attained: FloatArray, target: FloatArray) -> FloatArray:
    """Return the highest rate (n,) that keeps the target: attainment falls along rates (n, K).

    Linear between demand points; the lowest point if even that misses, the highest if all meet.
    """
    falling = np.minimum.accumulate(attained, axis=1)
    met = (falling >= target[:, np.newaxis]).sum(axis=1)  # of the demand points, the lowest first
    last = rates.shape[1] - 1
    low = np.clip(met - 1, 0, last - 1)
    each = np.arange(len(rates))
    lost = falling[each, low] - falling[each, low + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (rates[each, low + 1] - rates[each, low]) / lost
    between = slope * (falling[each, low] - target) + rates[each, low]
    carried: FloatArray = np.where(met > last, rates[:, -1], np.where(met, between, rates[:, 0]))
    return carried


def _overload_counted(loads: FloatArray, target: FloatArray, reachable: FloatArray) -> FloatArray:
    """Return (D, N) what `MISSES` must attain over loads (D, N, K) so that the expected share is `target`.

    What even an idle fleet misses, 1 - reachable (N,), is no overload and counts once.
    """
    times = (loads @ MISSES) / np.maximum(loads @ WEIGHTS, TINY_RPS)
    allowed = (1.0 - target) + np.maximum(times - 1.0, 0.0) * (1.0 - reachable)
    aims: FloatArray = 1.0 - allowed / np.maximum(times, 1.0)
    return aims


def _search_limit(variant: Variant) -> int:
    return max(LEAST_SEARCH, 2 * variant.max_replicas)


def _batches(
    keys: Sequence[tuple[str, str]],
    variants: Sequence[Variant],
    owners: Sequence[Situation],
    forecasts: Forecasts,
) -> tuple[Batch, ...]:
    demands = [s.demand for s in owners if s.demand is not None]
    drifts = [s.state.drifts.get(v.name, NO_DRIFT) for s, v in zip(owners, variants, strict=True)]
    batches = []
    for role in sorted({v.role.value for v in variants}):
        index = np.array([i for i, v in enumerate(variants) if v.role == role], dtype=np.int64)
        mine = [keys[i] for i in index]
        isl = np.array([demands[i].ahead_isl_tokens for i in index])
        osl = np.array([demands[i].ahead_osl_tokens for i in index])
        correction = forecasts.latency.correction(mine, isl, osl)
        batches.append(
            Batch(
                index=index,
                coefficients=at_pace(
                    forecasts.latency.coefficients(mine, [variants[i].profile_ref for i in index]),
                    factors([drifts[i] for i in index]),
                ),
                targets=capacity.TargetArrays.of([owners[i].policy.targets for i in index], role),
                isl_tokens=isl,
                osl_tokens=osl,
                correction=correction,
                now=_correction_now(forecasts, mine, [demands[i] for i in index], correction),
            )
        )
    return tuple(batches)


def _correction_now(
    forecasts: Forecasts,
    keys: Sequence[tuple[str, str]],
    demands: Sequence[Demand],
    ahead: Correction | None,
) -> Correction | None:
    """Return the correction for the lengths of now: the one `ahead`, where these are the same."""
    now = np.array([(d.isl_tokens, d.osl_tokens) for d in demands])
    if all(
        (d.ahead_isl_tokens, d.ahead_osl_tokens) == (d.isl_tokens, d.osl_tokens) for d in demands
    ):
        return ahead
    return forecasts.latency.correction(keys, now[:, 0], now[:, 1])


def _required(
    batches: Sequence[Batch],
    rates: FloatArray,
    mixes: FloatArray,
    ahead: Sequence[bool],
    weights: FloatArray,
    target: FloatArray,
    most: IntArray,
    guesses: IntArray,
) -> IntArray:
    """Return counts (D, N) for D demands of every lane; one call a role.

    `rates` (D, N, K) with `weights` (K,), in mixes (D, N, 2) of mean input and output tokens; `ahead`
    (D,) says which are those to come. `guesses` broadcast to (D, N), 0 where there is none.
    """
    times = rates.shape[0]
    guesses = np.broadcast_to(guesses, rates.shape[:2])
    found = np.full(rates.shape[:2], -1, dtype=np.int64)
    for b in batches:
        flat = rates[:, b.index].reshape(-1, rates.shape[2])
        counts = capacity.required_replicas(
            Coefficients.from_columns(np.tile(b.coefficients.columns(), times)),
            flat,
            np.broadcast_to(weights, flat.shape),
            mixes[:, b.index, 0].ravel(),
            mixes[:, b.index, 1].ravel(),
            capacity.TargetArrays(
                np.tile(b.targets.ttft_seconds, times),
                np.tile(b.targets.tpot_seconds, times),
                np.tile(b.targets.e2e_seconds, times),
                b.targets.role,
            ),
            target[:, b.index].ravel(),
            np.tile(most[b.index], times),
            correction=_corrections([b.correction if x else b.now for x in ahead]),
            guess=guesses[:, b.index].ravel(),
        )
        found[:, b.index] = counts.reshape(times, -1)
    return found


def _last_time(keys: Sequence[tuple[str, str]], owners: Sequence[Situation]) -> IntArray:
    """Return (4, N) what each lane needed in the tick before (Sizes.alone), 0 where that is not known.

    Most needs are those of the tick before, or nearly.
    """
    past = [
        s.state.sized.get(variant, UNSIZED) for s, (_, variant) in zip(owners, keys, strict=True)
    ]
    return np.array(past, dtype=np.int64).reshape(-1, len(UNSIZED)).T


def _corrections(each: Sequence[Correction | None]) -> Correction | None:
    """Return the corrections of several demands, one after the other; None where there are none."""
    known = [c for c in each if c is not None]
    if len(known) < len(each):
        return None
    return Correction(
        np.concatenate([c.ttft for c in known]), np.concatenate([c.tpot for c in known])
    )


def _idle_attainment(batches: Sequence[Batch], most: IntArray) -> FloatArray:
    """Return (N,) what a fleet attains that has next to nothing to serve."""
    return _gather(batches, lambda b: b.idle_attainment(most[b.index]))


def _without_hopeless(batch: Batch, most: IntArray) -> Batch:
    """Return the batch without the objectives that most requests miss on an idle fleet."""
    none = np.full(len(batch.index), np.inf)
    kept = {}
    for name in ("ttft_seconds", "tpot_seconds", "e2e_seconds"):
        seconds = getattr(batch.targets, name)
        alone = {"ttft_seconds": none, "tpot_seconds": none, "e2e_seconds": none, name: seconds}
        only = capacity.TargetArrays(**alone, role=batch.targets.role)
        share = replace(batch, targets=only).idle_attainment(most[batch.index])
        kept[name] = np.where(share < HOPELESS, np.inf, seconds)
    return replace(batch, targets=capacity.TargetArrays(**kept, role=batch.targets.role))


def _gather(batches: Sequence[Batch], f: Callable[[Batch], FloatArray]) -> FloatArray:
    """Evaluate each batch and put the results in the lanes' order."""
    out = np.full(sum(len(b.index) for b in batches), np.nan)
    for b in batches:
        out[b.index] = f(b)
    return out


def _stack(points: Sequence[FloatArray]) -> FloatArray:
    return np.array(points, dtype=np.float64).reshape(len(points), len(PROBABILITIES))
