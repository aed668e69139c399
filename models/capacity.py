"""From learned coefficients to attainment, required replicas and the capacity of a replica.

Everything here is elementwise and batched: coefficients, rates, lengths and targets broadcast, and no
loop runs over services. Attainment is that of a steady state at the given rate: zero at and beyond
saturation. Where no load as high, or no lengths as long, were ever seen, the model is extrapolating: the
load counts as higher, the further the more, so capacity errs to the safe side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from models.latency_correction import Correction
from models.latency_tails import (
    OSL_SIGMA,
    Tails,
    tails,
    tpot_quantile,
    tpot_share,
    ttft_quantile,
    ttft_share,
)
from models.slo import SloTargets
from models.step_time import N_COEFFICIENTS, Coefficients, Work, mean_field, request_work

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
QUANTILE_NAMES = tuple(f"{metric}_{level}" for metric in ("ttft", "tpot") for level in LEVELS)
WINDOW_SECONDS = 60.0  # over which percentiles are told, where no length is given
CAUTION = 0.15  # of the load, for each unit of saturation beyond what was seen
LENGTH_CAUTION = 0.1  # of the load, for each factor e that prompts or outputs are longer than seen
RATE_BISECTIONS = 40
TELLING = (
    7,
    4,
    2,
    1,
)  # demand points, from the highest, that decide most counts without the others
BLOCK = 16_384  # demand points evaluated at a time: what is in between stays in the cache
SURE = 1e-9  # of an expected share: closer to the target, all points are evaluated
PREFILL, DECODE, BOTH = "Prefill", "Decode", "Both"  # as autoscaler.core.types.Role


@dataclass(frozen=True, slots=True)
class TargetArrays:
    """What must be held: seconds, shape (N,) or any that broadcasts; infinity where there is none.

    `role` is the phase that the variants serve: Prefill answers for TTFT alone, Decode for TPOT alone.
    """

    ttft_seconds: FloatArray
    tpot_seconds: FloatArray
    e2e_seconds: FloatArray
    role: str = BOTH

    def __post_init__(self) -> None:
        """Refuse a role that does not exist."""
        if self.role not in (BOTH, PREFILL, DECODE):
            raise ValueError(f"role {self.role!r}; allowed: {BOTH}, {PREFILL}, {DECODE}")

    @classmethod
    def of(cls, targets: Sequence[SloTargets], role: str = BOTH) -> Self:
        """Return the targets of N services as arrays of shape (N,)."""
        return cls(
            np.array([t.ttft_seconds for t in targets], dtype=np.float64),
            np.array([t.tpot_seconds for t in targets], dtype=np.float64),
            np.array([t.e2e_seconds for t in targets], dtype=np.float64),
            role,
        )

    def expand(self) -> Self:
        """Return the same with a last axis of length 1, to broadcast against (N, K) demand."""
        return type(self)(
            self.ttft_seconds[..., None],
            self.tpot_seconds[..., None],
            self.e2e_seconds[..., None],
            self.role,
        )


def attainment(
    c: Coefficients,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    targets: TargetArrays,
    *,
    correction: Correction | None = None,
) -> FloatArray:
    """Return the expected share of requests that meet all targets, in [0, 1]; shapes broadcast.

    `arrival_rate_rps` is the variant's, over all its replicas. NaN where an input is NaN. Zero
    replicas serve nothing: 0 with load, 1 without. `correction`: what was learned beyond the physics.
    """
    work = _work(c, isl_tokens, osl_tokens, targets.role)
    return _attainment(c, work, arrival_rate_rps, replicas, targets, correction)


def required_replicas(  # noqa: PLR0913 - each broadcasts by itself
    c: Coefficients,
    rates_rps: FloatArray,
    weights: FloatArray,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    targets: TargetArrays,
    attainment_target: FloatArray,
    max_replicas: IntArray,
    *,
    correction: Correction | None = None,
    guess: IntArray | None = None,
) -> IntArray:
    """Return (N,) the fewest replicas whose expected attainment over the demand meets the target.

    The demand is K points a service: `rates_rps` and `weights` (N, K) (probabilities, any scale). A
    point counts by its requests, weight * rate: the newsvendor's expectation over requests. No demand
    needs 0 replicas; more than `max_replicas` needed gives max_replicas + 1; NaN inputs give -1.
    `guess` (N,), 0 where there is none: the nearer it is, the sooner the answer; it changes none.
    """
    search = _Search(
        c, isl_tokens, osl_tokens, targets, rates_rps, weights, attainment_target, correction
    )
    most = np.asarray(max_replicas, dtype=np.int64) + 1  # enough, or more than allowed
    known = np.isfinite(
        search.total_rps + c.base_seconds + isl_tokens + osl_tokens + attainment_target
    )
    full = search.full_replicas()
    found = search.least(
        np.where(known, most, 0), full if guess is None else np.where(guess > 0, guess, full)
    )
    return np.where(known, np.where(search.total_rps > 0, found, 0), -1)


class _Search:
    """The least counts that meet their targets, for N lanes at once; lanes that are done cost nothing."""

    def __init__(
        self,
        c: Coefficients,
        isl_tokens: FloatArray,
        osl_tokens: FloatArray,
        targets: TargetArrays,
        rates_rps: FloatArray,
        weights: FloatArray,
        attainment_target: FloatArray,
        correction: Correction | None,
    ) -> None:
        lanes = len(rates_rps)
        self._columns = np.broadcast_to(c.columns(), (N_COEFFICIENTS, lanes))
        self._isl, self._osl = (
            np.broadcast_to(np.asarray(x, dtype=np.float64), lanes)
            for x in (isl_tokens, osl_tokens)
        )
        self._seconds = tuple(
            np.broadcast_to(s, lanes)
            for s in (targets.ttft_seconds, targets.tpot_seconds, targets.e2e_seconds)
        )
        self._role = targets.role
        self._correction = correction
        self._target = np.broadcast_to(attainment_target, lanes)
        self._rates, share = rates_rps, weights * rates_rps
        self.total_rps = share.sum(axis=-1)
        self._share = share / np.where(self.total_rps > 0, self.total_rps, 1.0)[..., None]
        self._telling: IntArray | None = None
        points = rates_rps.shape[1]
        if points > TELLING[0] and not (np.diff(rates_rps) < 0).any():
            at = self._telling = points - np.array(TELLING)
            self._others = np.delete(np.arange(points), at)
            self._telling_rps, self._other_rps = rates_rps[:, at], rates_rps[:, self._others]
            self._up_to = np.add.reduceat(self._share, [0, *(at[:-1] + 1)], axis=1)
            self._from = np.add.reduceat(self._share, [0, *at], axis=1)

    def full_replicas(self) -> IntArray:
        """Return (N,) how many replicas the highest demand point keeps busy all the time."""
        c = Coefficients.from_columns(self._columns)
        busy = _work(c, self._isl, self._osl, self._role).saturation_seconds * self._rates[:, -1]
        whole: IntArray = np.ceil(np.clip(np.nan_to_num(busy), 1.0, 1e6)).astype(np.int64)
        return whole

    def least(self, most: IntArray, guess: IntArray) -> IntArray:
        """Return (N,) the least count below `most` that meets the target, else `most`.

        From the guess in doubling steps until it lies between, then by halves. Without demand: `most`.
        """
        low, high = np.where(self.total_rps > 0, 0, most), most.copy()
        probe = np.minimum(np.maximum(guess, 1), most - 1)
        stride = np.ones(len(most), dtype=np.int64)
        below, above = np.zeros(len(most), dtype=bool), np.zeros(len(most), dtype=bool)
        while (rows := np.flatnonzero(high - low > 1)).size:
            count = probe[rows]
            met = self._enough(count, rows)
            high[rows], above[rows] = np.where(met, count, high[rows]), above[rows] | met
            low[rows], below[rows] = np.where(met, low[rows], count), below[rows] | ~met
            ahead = np.where(above, high - stride, low + stride)
            near = np.minimum(np.maximum(ahead, low + 1), high - 1)
            probe = np.where(above & below, (low + high) // 2, near)
            stride *= 2
        return high

    def _enough(self, count: IntArray, rows: IntArray) -> NDArray[np.bool_]:
        """Return whether `count` replicas meet the target, of the lanes `rows`.

        Attainment falls along ascending rates. So a few points bound the expectation from both sides: what
        lies between two attains no more than the lower and no less than the higher. Where the target is not
        between the bounds, that decides.
        """
        target = self._target[rows]
        met: NDArray[np.bool_]
        if self._telling is None:
            got = self._attained(count, rows, self._rates[rows])
            met = (self._share[rows] * got).sum(axis=-1) >= target
            return met
        got = self._attained(count, rows, self._telling_rps[rows])
        least = (self._up_to[rows] * got).sum(axis=-1)
        most = self._from[rows, 0] + (self._from[rows, 1:] * got).sum(axis=-1)
        met = least >= target + SURE
        unsure = np.flatnonzero(~met & ~(most < target - SURE))
        if unsure.size:
            count, rows = count[unsure], rows[unsure]
            each = np.empty((rows.size, self._rates.shape[1]))
            each[:, self._telling] = got[unsure]
            each[:, self._others] = self._attained(count, rows, self._other_rps[rows])
            met[unsure] = (self._share[rows] * each).sum(axis=-1) >= target[unsure]
        return met

    def _attained(self, count: IntArray, rows: IntArray, rates_rps: FloatArray) -> FloatArray:
        """Return the share at rates (n, K) of the lanes `rows` with `count` replicas (n,)."""
        step = max(1, BLOCK // rates_rps.shape[1])
        parts = [slice(i, i + step) for i in range(0, max(1, rows.size), step)]
        return np.concatenate([self._part(count[p], rows[p], rates_rps[p]) for p in parts])

    def _part(self, count: IntArray, rows: IntArray, rates_rps: FloatArray) -> FloatArray:
        c = Coefficients.from_columns(self._columns[:, rows]).expand()
        work = _work(c, self._isl[rows, None], self._osl[rows, None], self._role)
        ttft, tpot, e2e = (s[rows, None] for s in self._seconds)
        goals = TargetArrays(ttft, tpot, e2e, self._role)
        known = self._correction
        correction = None if known is None else known.rows(rows).expand()
        replicas = count.astype(np.float64)[:, None]
        return _attainment(c, work, rates_rps, replicas, goals, correction)


def replica_capacity_rps(
    c: Coefficients,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    targets: TargetArrays,
    attainment_target: FloatArray,
    replicas: FloatArray | float = 1.0,
    *,
    correction: Correction | None = None,
    bisections: int = RATE_BISECTIONS,
) -> FloatArray:
    """Return the most requests/s per replica that meet the target when `replicas` share the load.

    0 where not even an idle replica meets it; NaN where an input is NaN. Too low by at most the rate of
    saturation over 2^bisections.
    """
    count = np.asarray(replicas, dtype=np.float64)
    work = _work(c, isl_tokens, osl_tokens, targets.role)
    top = 1.0 / work.saturation_seconds
    low, high = np.zeros_like(top * count), top * np.ones_like(count)
    for _ in range(bisections):
        middle = 0.5 * (low + high)
        got = _attainment(c, work, middle * count, count, targets, correction)
        met = got >= attainment_target
        low, high = np.where(met, middle, low), np.where(met, high, middle)
    return np.where(np.isfinite(top), low, np.nan)


def predicted_latency(  # noqa: PLR0913 - each broadcasts by itself
    c: Coefficients,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    horizon_seconds: FloatArray | float = WINDOW_SECONDS,
    role: str = BOTH,
    levels: FloatArray | None = None,
    *,
    correction: Correction | None = None,
) -> dict[str, FloatArray]:
    """Return ttft_p50, ttft_p95, ttft_p99, tpot_p50, ... in seconds; shapes broadcast.

    Of a variant that serves one phase only (`role`), only that phase's latency means something.

    Beyond saturation there is no steady state: what is given is the mean over an overload that lasts
    `horizon_seconds`, from an empty queue. `levels` (..., 3): what is asked for under these names,
    0.5, 0.95 and 0.99 where not given.
    """
    asked = np.array(list(LEVELS.values())) if levels is None else levels
    with np.errstate(invalid="ignore", divide="ignore"):
        work = _work(c, isl_tokens, osl_tokens, role)
        t = _window_tails(c, work, arrival_rate_rps, replicas, horizon_seconds, correction)
        out = {f"ttft_{k}": ttft_quantile(t, asked[..., n]) for n, k in enumerate(LEVELS)}
        out.update({f"tpot_{k}": tpot_quantile(t, asked[..., n]) for n, k in enumerate(LEVELS)})
    return out


def predicted_p95(
    c: Coefficients,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    role: str = BOTH,
    *,
    correction: Correction | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the p95 of TTFT and of TPOT in seconds: those of `predicted_latency`, without the others."""
    with np.errstate(invalid="ignore", divide="ignore"):
        work = _work(c, isl_tokens, osl_tokens, role)
        t = _window_tails(c, work, arrival_rate_rps, replicas, WINDOW_SECONDS, correction)
        level = np.asarray(LEVELS["p95"])
        return ttft_quantile(t, level), tpot_quantile(t, level)


def _window_tails(
    c: Coefficients,
    work: Work,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    horizon_seconds: FloatArray | float,
    correction: Correction | None,
) -> Tails:
    rate = arrival_rate_rps / replicas
    batch = mean_field(c, work, rate, replicas)
    t = tails(c, work, batch, rate, replicas, horizon_seconds)
    return t if correction is None else correction.apply(t, work, rate)


def _work(c: Coefficients, isl_tokens: FloatArray, osl_tokens: FloatArray, role: str) -> Work:
    return request_work(c, isl_tokens, osl_tokens, prefill=role != DECODE, decode=role != PREFILL)


def _attainment(
    c: Coefficients,
    work: Work,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    targets: TargetArrays,
    correction: Correction | None,
) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        count = np.maximum(replicas, 1.0)
        rate = arrival_rate_rps / count
        beyond = np.maximum(rate * work.saturation_seconds - c.seen_load_ratio, 0.0)
        longer = np.log(np.maximum(work.isl_tokens / c.seen_isl_tokens, 1.0))
        longer = longer + np.log(np.maximum(work.osl_tokens / c.seen_osl_tokens, 1.0))
        rate = rate * (1.0 + CAUTION * beyond + LENGTH_CAUTION * longer)
        batch = mean_field(c, work, rate, count)
        t = tails(c, work, batch, rate, count)
        if correction is not None:
            t = correction.apply(t, work, rate)
        share = np.where(
            t.saturated, 0.0, 1.0
        )  # no target of infinity is met by a queue that grows
        if targets.role != DECODE:
            share = share * ttft_share(t, targets.ttft_seconds)
        if targets.role != PREFILL:
            share = share * tpot_share(t, targets.tpot_seconds)
        if targets.role == BOTH and np.isfinite(targets.e2e_seconds).any():
            share = share * _e2e_share(t, work, targets.e2e_seconds)
        nothing = np.where(arrival_rate_rps > 0, 0.0, 1.0)
        share = np.where(replicas >= 1.0, share, nothing)
        bad = np.isnan(arrival_rate_rps + rate + c.base_seconds)
    # not np.clip, which costs several times as much on the few lanes of a tick
    return np.where(bad, np.nan, np.minimum(np.maximum(share, 0.0), 1.0))


def _e2e_share(t: Tails, work: Work, seconds: FloatArray) -> FloatArray:
    """Share with TTFT + output * TPOT <= `seconds`: the decode is lognormal, as output lengths are.

    TTFT enters by its median prompt and mean wait: most of its spread is small beside a decode's.
    """
    before = (
        t.start_seconds
        + t.prompt_median_seconds
        + t.queue_chance * t.queue_seconds
        + t.slot_chance * t.slot_seconds
    )
    tpot = t.tpot_floor_seconds + t.tpot_excess_seconds
    median = work.osl_tokens * tpot * np.exp(-0.5 * OSL_SIGMA**2)
    room = np.maximum(seconds - before, 1e-12)
    share: FloatArray = ndtr(np.log(room / median) / OSL_SIGMA)
    return share
