"""From a replica's mean field to the distributions of TTFT and TPOT.

TTFT = overhead + rest of the running step + own prompt + wait. The own prompt is lognormal, as prompt
lengths are. The wait is behind other prompts (a single server per replica, M/G/1: Pollaczek-Khinchine
for the mean of those who wait, with least-load routing the chance to wait shrinks with the neighbours
and the queue's part of the wait is shared by R) and for a place in the batch (M/M/c with Sakasegawa's
exponent, Queueing Systems 1977). Both waits are an atom at zero and an exponential tail, which is the
heavy-traffic limit (Kingman 1962).

TPOT = what a lone request sees + neighbours: a compound sum over neighbours, matched by its first two
moments with a gamma distribution (Wilson and Hilferty's cube-root approximation, PNAS 1931; a shape
far below one leaves most requests undisturbed, as seen). Near saturation its variance grows by
1 / (1 - load), the negative-binomial limit of a birth-death batch whose departures slow down. Far out
one long prompt does it alone: an answer of few tokens that a prompt of thousands stands in the way of. Sums
of heavy-tailed times exceed a bound as their largest does (the single big jump: Foss, Korshunov, Zachary,
An Introduction to Heavy-Tailed and Subexponential Distributions, 2011); the share within a target counts
such jumps, percentiles up to p99 hardly see them and do without.

Every piece is stochastically increasing in the load and decreasing in the replicas, so that the
share within a target is monotone. A queue that is overloaded for a limited time has a finite mean:
the coordinate transformation of Kimber and Hollis (TRRL LR909, 1979), used with `horizon_seconds`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from models.step_time import FULL, Batch, Coefficients, Work

FloatArray = NDArray[np.float64]
TINY = 1e-12
HUGE = 1e12  # seconds: a target of infinity, in arithmetic
FADED = 600.0  # exp(-600) is nothing beside any chance, and still a normal number
OSL_SIGMA = 0.8  # spread (log) of output lengths
BISECTIONS = 20  # of the logarithm of TTFT: a bracket of e^9 shrinks to 1e-5


@dataclass(frozen=True, slots=True)
class Tails:
    """Parameters of both distributions; every field broadcasts against the others."""

    start_seconds: FloatArray  # TTFT of a prompt without tokens
    prompt_median_seconds: FloatArray
    prompt_sigma: FloatArray
    queue_chance: FloatArray
    queue_seconds: FloatArray  # mean wait of those who wait for other prompts
    slot_chance: FloatArray
    slot_seconds: FloatArray  # mean wait of those who wait for a place in the batch
    tpot_floor_seconds: FloatArray
    tpot_excess_seconds: FloatArray  # mean above the floor
    tpot_shape: FloatArray  # of the gamma distribution
    jump_count: FloatArray  # other prompts that come in the way of an answer, on average
    jump_median_seconds: FloatArray  # what such a prompt adds to the answer's TPOT
    jump_sigma: FloatArray  # of its logarithm
    saturated: NDArray[np.bool_]


def tails(
    c: Coefficients,
    work: Work,
    batch: Batch,
    rate_rps: FloatArray,
    replicas: FloatArray,
    horizon_seconds: FloatArray | float | None = None,
) -> Tails:
    """Return the distributions at `rate_rps` per replica.

    Without `horizon_seconds`: over all windows of that load, in a steady state (what to size for).
    With it: inside one window, an overload lasting that long (what percentiles of a window show).
    """
    o = batch.neighbours
    growth = 1.0 + work.decode_seconds * o / c.base_seconds  # of a step's part beside prompts
    spread = np.exp(c.isl_sigma**2)
    busy = o / (1.0 + o)
    start = c.overhead_seconds + c.base_seconds * growth + c.start_steps * busy * batch.tpot_seconds
    own = work.prompt_seconds + c.base_seconds * growth * c.steps_per_token * work.prompt_tokens
    shape = _tpot_shape(c, work, batch, replicas, horizon_seconds is not None)
    if horizon_seconds is None:
        shape = shape / (1.0 + shape * c.tpot_scatter_ratio**2)
        rate_rps = rate_rps * c.burst_ratio
    queue_chance, queue_seconds = _prompt_queue(c, work, batch, rate_rps, replicas, horizon_seconds)
    slot_chance, slot_seconds = _slot_queue(c, work, batch, rate_rps, replicas, horizon_seconds)
    jump_count, jump_median = _jumps(c, work, batch, rate_rps)
    return Tails(
        start_seconds=start,
        prompt_median_seconds=own / np.sqrt(spread),
        prompt_sigma=c.isl_sigma,
        queue_chance=queue_chance,
        queue_seconds=queue_seconds,
        slot_chance=slot_chance,
        slot_seconds=slot_seconds,
        tpot_floor_seconds=work.alone_seconds,
        tpot_excess_seconds=work.neighbour_seconds * o,
        tpot_shape=shape,
        jump_count=jump_count,
        jump_median_seconds=jump_median,
        jump_sigma=np.sqrt(c.isl_sigma**2 + OSL_SIGMA**2),
        saturated=rate_rps * work.saturation_seconds >= FULL_LOAD,
    )


FULL_LOAD = 0.999  # of saturation: the theory's wait is beyond any target there


def _jumps(
    c: Coefficients, work: Work, batch: Batch, rate_rps: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return (mean number of prompts that come in an answer's way, median of what each adds to its TPOT).

    Prompts and answers are lognormal. Long answers meet more prompts and feel each less: in the mean over
    answers, weighted by their length, ln(length) has mean m + sigma^2.
    """
    count = rate_rps * work.osl_tokens * batch.tpot_seconds
    prompt = work.prompt_seconds * np.exp(-0.5 * c.isl_sigma**2)
    answer = work.osl_tokens * np.exp(0.5 * OSL_SIGMA**2)
    return count, prompt / answer


def _tpot_shape(
    c: Coefficients, work: Work, batch: Batch, replicas: FloatArray, bounded: bool
) -> FloatArray:
    """Shape of the gamma distribution: mean^2 / variance of what neighbours add to a token.

    Half of a neighbour's stay overlaps with mine: the mean square of its share is 2/3. Behind
    least-load routing all replicas' batches swell together, so their number's variance is shared by
    R; which prompts interrupt me is not. Where `bounded`, a batch that is full cannot grow, so its
    size varies less: right for percentiles near a full batch, but not monotone in the load, so the
    share within a target does without.
    """
    prompt = work.prompt_seconds / work.osl_tokens
    free = 1.0 - (batch.neighbours / (work.slots - 1.0 + TINY)) ** 2 if bounded else 1.0
    apart = 1.0 - c.routing_ratio * (1.0 - 1.0 / replicas)
    batches = 2.0 / 3.0 * free * apart * work.decode_seconds**2
    square = batches + prompt**2 * np.exp(c.isl_sigma**2) + TINY
    swelling = 1.0 + apart * (1.0 / (1.0 - batch.decode_load * free) - 1.0)
    shape: FloatArray = (
        batch.neighbours * work.neighbour_seconds**2 / (c.tpot_spread * square * swelling)
    )
    return shape


def _prompt_queue(
    c: Coefficients,
    work: Work,
    batch: Batch,
    rate_rps: FloatArray,
    replicas: FloatArray,
    horizon_seconds: FloatArray | float | None,
) -> tuple[FloatArray, FloatArray]:
    """Return (chance to wait, mean wait of those who do) behind other prompts of the replica."""
    steady = np.minimum(rate_rps, FULL / work.saturation_seconds)
    for_prompts = 1.0 - steady * work.osl_tokens * work.decode_seconds
    use = rate_rps * work.serial_prompt_seconds / for_prompts
    share = batch.neighbours / np.maximum(batch.running, batch.neighbours + TINY)
    clipped = np.minimum(use, 1.0)
    arrivals, prompts = 1.0 - c.regularity_ratio, np.expm1(c.isl_sigma**2)
    chance = _delay_chance(clipped, arrivals, prompts) * share ** (1.0 - clipped)
    residual = 0.5 * c.wait_scale * (arrivals + prompts) * work.serial_prompt_seconds / for_prompts
    return chance, residual * (1.0 + _queue_length(use, residual, replicas, horizon_seconds))


def _delay_chance(use: FloatArray, arrivals: FloatArray, service: FloatArray) -> FloatArray:
    """Chance to find a single server busy: `use` for Poisson arrivals, none for a steady beat.

    `arrivals` and `service` are squared coefficients of variation (Kraemer and Langenbach-Belz, 8th
    International Teletraffic Congress, 1976; the case of arrivals no burstier than Poisson).
    """
    below = 1.0 + use * (service - 1.0) + use**2 * (4.0 * arrivals + service)
    lucky = (1.0 - arrivals) * (1.0 - use) * (1.0 + arrivals + use * service) / below
    chance: FloatArray = use * (1.0 - lucky)
    return chance


def _slot_queue(
    c: Coefficients,
    work: Work,
    batch: Batch,
    rate_rps: FloatArray,
    replicas: FloatArray,
    horizon_seconds: FloatArray | float | None,
) -> tuple[FloatArray, FloatArray]:
    """Return (chance to wait, mean wait of those who do) for a place in the batch."""
    steady = np.minimum(rate_rps, FULL / work.saturation_seconds)
    left = 1.0 - steady * work.osl_tokens * work.neighbour_seconds
    use = rate_rps * c.base_seconds * work.osl_tokens / (work.slots * left)
    clipped = np.minimum(use, 1.0)
    servers = np.sqrt(2.0 * (work.slots * replicas + 1.0)) - 1.0
    chance = np.maximum(clipped, _fading(FADED / servers)) ** servers
    turn = c.wait_scale * work.osl_tokens * batch.tpot_seconds / work.slots
    return chance, turn * (1.0 / replicas + _queue_length(use, turn, replicas, horizon_seconds))


def _queue_length(
    use: FloatArray,
    service: FloatArray,
    replicas: FloatArray,
    horizon_seconds: FloatArray | float | None,
) -> FloatArray:
    """Mean queue over R in units of `service`: u / (1 - u) / R; finite over a limited horizon."""
    if horizon_seconds is None:
        return np.where(use < FULL_LOAD, use / np.maximum(1.0 - use, TINY), HUGE) / replicas
    short = service / (replicas * horizon_seconds)
    half = 0.5 * (1.0 - use + short)
    return use / (half + np.sqrt(half * half + use * short)) / replicas


def ttft_share(t: Tails, seconds: FloatArray) -> FloatArray:
    """Share of requests with TTFT <= `seconds`, in [0, 1]."""
    room = np.minimum(np.maximum(seconds - t.start_seconds, TINY), HUGE)
    own = ndtr(np.log(room / np.maximum(t.prompt_median_seconds, TINY)) / t.prompt_sigma)
    slack = np.maximum(room - t.prompt_median_seconds, 0.0)
    waits = t.queue_chance * _fading(slack / np.maximum(t.queue_seconds, TINY))
    places = t.slot_chance * _fading(slack / np.maximum(t.slot_seconds, TINY))
    share: FloatArray = own * (1.0 - waits) * (1.0 - places)
    return share


def _fading(times: FloatArray) -> FloatArray:
    """Return exp(-times); a result that is nothing beside 1 is computed no smaller: underflow is slow."""
    return np.exp(-np.minimum(times, FADED))


def tpot_share(t: Tails, seconds: FloatArray) -> FloatArray:
    """Share of requests with TPOT <= `seconds`, in [0, 1]: undisturbed as a body, and by no long prompt."""
    room = np.minimum(np.maximum(seconds - t.tpot_floor_seconds, 0.0), HUGE)
    shape = np.maximum(t.tpot_shape, 1e-6)
    ratio = np.cbrt(room / np.maximum(t.tpot_excess_seconds, TINY))
    share: FloatArray = ndtr(3.0 * np.sqrt(shape) * (ratio - 1.0 + 1.0 / (9.0 * shape)))
    left = np.maximum(room - t.tpot_excess_seconds, TINY)
    far = ndtr(np.log(np.maximum(t.jump_median_seconds, TINY) / left) / t.jump_sigma)
    undisturbed = 1.0 - np.minimum(t.jump_count * far, 1.0)
    return np.where(seconds < t.tpot_floor_seconds, 0.0, share * undisturbed)


def ttft_quantile(t: Tails, quantile: FloatArray) -> FloatArray:
    """TTFT in seconds at `quantile` in (0, 1), by bisection of its logarithm; shapes broadcast."""
    z = ndtri(np.clip(quantile, 1e-6, 1.0 - 1e-6))
    own = t.prompt_median_seconds * np.exp(z * t.prompt_sigma)
    low = np.log(t.start_seconds + own)
    wait = t.queue_seconds * _log_ratio(t.queue_chance, 0.3 * (1.0 - quantile))
    place = t.slot_seconds * _log_ratio(t.slot_chance, 0.3 * (1.0 - quantile))
    wide = t.prompt_median_seconds * np.exp(ndtri(0.7 + 0.3 * quantile) * t.prompt_sigma)
    high = np.log(t.start_seconds + wide + wait + place)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = ttft_share(t, np.exp(middle)) < quantile
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    middle = np.exp(0.5 * (low + high))
    return np.asarray(middle, dtype=np.float64)


def _log_ratio(chance: FloatArray, miss: FloatArray) -> FloatArray:
    return np.log(np.maximum(chance / miss, 1.0))


def tpot_quantile(t: Tails, quantile: FloatArray) -> FloatArray:
    """TPOT in seconds at `quantile` in (0, 1), of the body of the distribution; shapes broadcast."""
    shape = np.maximum(t.tpot_shape, 1e-6)
    z = ndtri(np.clip(quantile, 1e-6, 1.0 - 1e-6))
    root = np.maximum(1.0 - 1.0 / (9.0 * shape) + z / (3.0 * np.sqrt(shape)), 0.0)
    seconds: FloatArray = t.tpot_floor_seconds + t.tpot_excess_seconds * root**3
    return seconds
