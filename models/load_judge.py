"""Who serves each service: weights of the blend, the winner, the calibration, and how sure that is.

Everything is learned on forecasts of the held-out days. What is reported is cross-fitted: each half of
the days is scored with weights and calibration from the other half.
"""

from dataclasses import dataclass

import numpy as np

from models.blend import fleet_weights, learn_weights
from models.conformal import Conformal
from models.empirical import known_quantiles
from models.features import IntArray
from models.load_model import (
    BLEND,
    CANDIDATES,
    CONTESTANTS,
    LGBM,
    LOCAL,
    rule_quantiles,
    serving_weights,
)
from models.load_sample import Sample
from models.losses import pinball_losses
from models.quantiles import QUANTILES, FloatArray
from models.simple_rules import RULES

PRIOR_DAYS = 4.0  # the fleet's verdict counts as much as so many held-out days of a service's own
FIRST_WEIGHT = 0.7  # of trees, global and own together, before anything is known
MOST_OWN_RATIO = 0.5  # of the trees' weight: a service's own history is short, the fleet's is not
NOT_BLENDED = (
    "yesterday",
    "last-week",
)  # right for days, then off by whole levels: the ratio and the rise are not
FLEET_SERVICES = 200  # whose losses choose the fleet's weights
FLEET_ROWS = 150  # of each
BLOCK_ORIGINS = 3  # at least, each
BLOCKS = 8  # neighbouring origins err alike: differences are averaged over so many blocks
CERTAIN_ERRORS = 2.5  # standard errors by which one contestant must beat the blend to replace it
TRUST_ERRORS = 1.0  # ... and by which what serves must beat the last value to be trusted
NINETY = QUANTILES.index(0.9)
NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """S services, K contestants; row S of `weights` and `winner` is for services never seen."""

    weights: FloatArray  # (S + 1, K)
    winner: IntArray  # (S + 1,), index into CANDIDATES
    shift: Conformal
    losses: FloatArray  # (S, candidates), mean pinball loss over the service's mean; NaN unknown
    origins: IntArray  # (S,)
    coverage: FloatArray  # (S,), of the 0.9 quantile that serves
    lead_over_last: FloatArray  # (S,), mean gain on the last value in standard errors; NaN unknown


@dataclass(frozen=True, slots=True)
class _Service:
    """One service's held-out forecasts. N origins, L leads."""

    forecast: FloatArray  # (N, L, K, Q), in scales
    actual: FloatArray  # (N, L), in scales
    scale: FloatArray  # (N,)
    low: FloatArray  # (N,)
    high: FloatArray  # (N,)
    contestants: int  # the first so many compete: all, or all but the local one, or the rules

    def rows(self, part: slice) -> tuple[FloatArray, FloatArray]:
        """Forecasts (n, K, Q) and truth (n,) of some origins, in the target's unit."""
        scale = self.scale[part, None]
        forecast = self.forecast[part] * scale[..., None, None]
        return forecast.reshape(-1, *forecast.shape[2:]), (self.actual[part] * scale).ravel()

    def losses(self, u: FloatArray) -> FloatArray:
        """Pinball loss (N, L), mean over quantiles, of forecasts `u` (N, L, Q), in the target's unit."""
        u = np.clip(u, self.low[:, None, None], self.high[:, None, None])
        loss: FloatArray = pinball_losses(self.actual, u, QUANTILES).mean(axis=-1)
        return loss * self.scale[:, None]


def judge(
    held: Sample, table: FloatArray, *, days: float, fitted: bool, own: frozenset[int] = NONE
) -> Verdict:
    """Compare contestants on the held-out sample. `table` (S, L, C, Q): the rules' errors before it.

    The sample spans `days`. Without `fitted` the models know nothing and do not compete; the services that
    have trees of their `own` are given by their row.
    """
    services, origins, leads = held.actual.shape
    every = [_service(held, table, s, own=s in own) for s in range(services)]
    count = np.isfinite(held.actual).any(axis=2).sum(axis=1)
    prior = _fleet(every, first_weights(fitted=fitted))
    share = days / (days + PRIOR_DAYS)  # neighbouring hours err alike: days are what counts
    shares = [_weights(x, prior, slice(None), share) for x in every]
    weights = np.stack([*shares, _with_local(prior, 0.0)])
    winner = np.full(services + 1, CANDIDATES.index(BLEND))
    served = np.zeros((services, origins, leads, len(QUANTILES)))
    crossed = np.zeros_like(served)
    alone = np.full((services, len(CONTESTANTS)), np.nan)
    gains, blend = np.full_like(alone, np.nan), np.full(services, np.nan)
    for s, one in enumerate(every):
        for here, other in _halves(origins):
            crossed[s, here] = _mix(one.forecast[here], _weights(one, prior, other, share))
        alone[s], gains[s], blend[s] = _alone(one, crossed[s])
    relative = np.log(np.maximum(alone, 1e-9)) - np.log(np.maximum(blend, 1e-9))[:, None]
    fleet = known_quantiles(relative, 0.5)
    leant = share * relative + (1 - share) * fleet
    for s, one in enumerate(every):
        best = _certain(leant[s], gains[s])
        if best is not None:
            winner[s] = best
            crossed[s] = one.forecast[:, :, best]
        served[s] = _mix(one.forecast, serving_weights(weights, winner)[s])
    shift = Conformal.fit(served, held.actual) if origins else Conformal.none(services, leads)
    final = _cross_calibrated(crossed, held.actual)
    losses = np.concatenate([alone, np.full((services, 1), np.nan)], axis=1)
    coverage, gain = np.full(services, np.nan), np.full(services, np.nan)
    for s, one in enumerate(every):
        losses[s, winner[s]], coverage[s], gain[s] = _account(one, final[s])
    return Verdict(weights, winner, shift, losses, count, coverage, gain)


def first_weights(*, fitted: bool) -> FloatArray:
    """Weights (K,) before anything is known: LightGBM foremost, or the rules alike without it."""
    weight = np.zeros(len(CONTESTANTS))
    if not fitted:
        weight[: len(RULES)] = 1 / len(RULES)
        return weight
    weight[:] = (1 - FIRST_WEIGHT) / (weight.size - 2 - len(NOT_BLENDED))
    weight[[CONTESTANTS.index(name) for name in NOT_BLENDED]] = 0.0
    weight[[CONTESTANTS.index(LGBM), CONTESTANTS.index(LOCAL)]] = FIRST_WEIGHT / 2
    return weight


def _with_local(weight: FloatArray, most_ratio: float) -> FloatArray:
    """Give own trees at most so much of the trees' weight (K,), and the rest to the global ones."""
    whole, local = CONTESTANTS.index(LGBM), CONTESTANTS.index(LOCAL)
    out, trees = weight.copy(), weight[whole] + weight[local]
    out[local] = min(weight[local], most_ratio * trees)
    out[whole] = trees - out[local]
    return out


def _service(held: Sample, table: FloatArray, s: int, *, own: bool) -> _Service:
    origins = held.actual.shape[1]
    rules = rule_quantiles(held.centres[s], np.broadcast_to(table[s], (origins, *table[s].shape)))
    fitted, contestants = held.fitted[s], len(CONTESTANTS) - (0 if own else 1)
    if fitted.shape[2] == 0:
        contestants = len(RULES)
        fitted = np.zeros((*rules.shape[:2], len(CONTESTANTS) - len(RULES), rules.shape[-1]))
    low, high = held.low[s], held.high[s]
    forecast = np.concatenate([rules, fitted], axis=2)
    forecast = np.clip(forecast, low[:, None, None, None], high[:, None, None, None])
    seen = np.isfinite(forecast).all(axis=(2, 3)) & np.isfinite(held.actual[s])
    actual = np.where(seen, held.actual[s], np.nan)
    return _Service(forecast, actual, held.scale[s], low, high, contestants)


def _fleet(every: list[_Service], first: FloatArray) -> FloatArray:
    thin = []
    for own in every[:: max(1, -(-len(every) // FLEET_SERVICES))]:
        forecast, actual = own.rows(slice(None))
        step = max(1, actual.size // FLEET_ROWS)
        thin.append((forecast[::step], actual[::step]))
    return fleet_weights(thin, first)


def _weights(own: _Service, prior: FloatArray, part: slice, share: float) -> FloatArray:
    """Weights of one service, learned on some of its origins and leant on the fleet's."""
    forecast, actual = own.rows(part)
    learned: FloatArray = share * learn_weights(forecast, actual, prior) + (1 - share) * prior
    return _with_local(learned, MOST_OWN_RATIO if own.contestants == len(CONTESTANTS) else 0.0)


def _mix(forecast: FloatArray, weights: FloatArray) -> FloatArray:
    mixed: FloatArray = np.einsum("nlkq,k->nlq", forecast, weights)
    return mixed


def _halves(origins: int) -> tuple[tuple[slice, slice], ...]:
    first, second = slice(0, origins // 2), slice(origins // 2, origins)
    return (first, second), (second, first)


def _alone(own: _Service, blend: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Relative loss of each contestant (K,), its gain on the blend in standard errors, the blend's loss."""
    mean = _mean_load(own)
    base = own.losses(blend)
    losses = np.full(len(CONTESTANTS), np.nan)
    gains = np.full(len(CONTESTANTS), np.nan)
    for k in range(own.contestants):
        loss = own.losses(own.forecast[:, :, k])
        losses[k] = _known_average(loss) / mean
        gains[k] = _gain(base, loss)
    return losses, gains, _known_average(base) / mean


def _certain(relative: FloatArray, gains: FloatArray) -> int | None:
    """Return the contestant that is better than the blend beyond doubt, by both measures (K,), if any."""
    better = (relative < 0) & (gains > CERTAIN_ERRORS)
    return int(np.argmin(np.where(better, relative, np.inf))) if better.any() else None


def _gain(theirs: FloatArray, ours: FloatArray) -> float:
    """By how many standard errors our losses (N, L) are lower than theirs; NaN if that is unknown."""
    difference = theirs - ours
    difference = difference[np.isfinite(difference).any(axis=1)]
    if difference.shape[0] < BLOCKS * BLOCK_ORIGINS:
        return float("nan")
    known = np.array([_known_average(b) for b in np.array_split(difference, BLOCKS)])
    error = known.std(ddof=1) / np.sqrt(known.size)
    if error > 0:
        return float(known.mean() / error)
    return 0.0 if known.mean() == 0 else float(np.copysign(np.inf, known.mean()))


def _account(own: _Service, u: FloatArray) -> tuple[float, float, float]:
    """Relative loss and coverage of what serves, and its gain on the last value."""
    loss = own.losses(u)
    known = np.isfinite(own.actual)
    under = own.actual[known] <= u[..., NINETY][known]
    last = own.losses(own.forecast[:, :, 0])
    coverage = float(under.mean()) if known.any() else float("nan")
    return _known_average(loss) / _mean_load(own), coverage, _gain(last, loss)


def _mean_load(own: _Service) -> float:
    """Mean of the truth in the target's unit; `low` is where zero lies."""
    load = (own.actual - own.low[:, None]) * own.scale[:, None]
    return max(_known_average(load), 1e-9)


def _known_average(x: FloatArray) -> float:
    known = x[np.isfinite(x)]
    return float(known.mean()) if known.size else float("nan")


def _cross_calibrated(u: FloatArray, actual: FloatArray) -> FloatArray:
    """Each half of the origins, calibrated with the errors of the other."""
    services, origins = u.shape[:2]
    out = u.copy()
    for here, other in _halves(origins):
        if origins < 2:
            continue
        shift = Conformal.fit(u[:, other], actual[:, other])
        for s in range(services):
            out[s, here] = shift.apply(u[s, here], np.full(u[s, here].shape[0], s))
    return out
