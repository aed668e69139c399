"""Very many services where limits bind: a price for what is scarce, and every service chooses for itself.

The Lagrangian of the planner's problem: with a price on each limit the services part, and each takes the
cheapest of its candidate plans (autoscaler.core.columns). The services' cheapest choices at any prices, less
what the limits are worth at them, cost no more than any choice that keeps the limits; the prices at which
that bound is highest are the right ones (Everett, Generalized Lagrange multiplier method, Op. Res. 11, 1963;
Geoffrion, Lagrangean relaxation for integer programming, Math. Prog. Study 2, 1974). What is then a few
replicas too much is taken from who loses least, what is left goes to who gains most for its price. With few
limits and many services the bound is tight: it tells how much a better choice could save.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.columns import Columns, columns_of
from autoscaler.core.needs import COVER_SLACK, Limits, ServiceNeed, VariantNeed, usage_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ROUNDS = 10  # over all limits; two or three are usual
CALM = 1e-3  # of a price, that a round may still move it
FIRST_USD, LAST_USD = 1e-3, 1e15  # of the prices that are tried
HALVINGS = 30  # of the span that holds a price
FILLS = 3  # passes over who may have what is left
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Market:
    """K limits, and what the C candidate plans of S services use of those that each falls under."""

    most: FloatArray  # (K + 1,), the last without limit
    under: IntArray  # (S, L), which limits; K where a service falls under fewer
    use: FloatArray  # (S, L, C)

    def priced(self, prices: FloatArray, some: IntArray | slice = slice(None)) -> FloatArray:
        """Return what the candidates of some services use, at prices (K + 1,), (S, C)."""
        out: FloatArray = np.einsum("slc,sl->sc", self.use[some], prices[self.under[some]])
        return out

    def used(self, use: FloatArray) -> FloatArray:
        """Return the sums (K + 1,) of what services use (S, L)."""
        sums = np.bincount(self.under.ravel(), use.ravel(), minlength=self.most.size)
        return sums.astype(np.float64)

    def left(self, chosen: IntArray) -> FloatArray:
        """Return what chosen plans (S,) leave of every limit, (K + 1,)."""
        return self.most - self.used(self.use[np.arange(chosen.size), :, chosen])

    def take(self, s: int, c: int, chosen: IntArray, left: FloatArray) -> None:
        """Let a service have another plan: changes `chosen` and `left`."""
        np.add.at(left, self.under[s], self.use[s, :, chosen[s]] - self.use[s, :, c])
        chosen[s] = c


def plan_by_price(
    needs: tuple[ServiceNeed, ...],
    limits: Limits,
    alone: Mapping[str, tuple[int, ...]],
) -> tuple[Mapping[str, tuple[int, ...]], float] | None:
    """Return (replicas per service, gap), or None where not even the least of everybody fits.

    `alone` are the best plans of services that have everything to themselves: taken where nothing that a
    service uses is scarce. The gap is the share of the cost that a better choice could save.
    """
    columns = columns_of(needs)
    usd = columns.usd
    if not np.isfinite(usd.min(axis=1)).all():
        return None
    market = _market(needs, limits, columns)
    if (market.used(market.use.min(axis=2)) > market.most).any():
        return None
    prices = _settle(market, usd)
    priced = market.priced(prices)
    total = usd + priced
    chosen = total.argmin(axis=1)
    bound = total.min(axis=1).sum() - prices[:-1] @ market.most[:-1]
    left = market.left(chosen)
    if not _trim(market, total, chosen, left):
        return None
    _fill(market, priced, usd, chosen, left)
    cost = usd[np.arange(len(needs)), chosen].sum()
    plan = {
        need.service: _counts(columns, s, chosen[s], len(need.variants))
        for s, need in enumerate(needs)
    }
    free = [need for need, most in zip(needs, priced.max(axis=1), strict=True) if most == 0]
    better = plan | {n.service: alone[n.service] for n in free if n.service in alone}
    if usage_of(needs, better, limits).fits():
        plan = better
    return plan, max(0.0, float(1.0 - bound / max(cost, COVER_SLACK)))


def _counts(columns: Columns, s: int, c: int, variants: int) -> tuple[int, ...]:
    return tuple(int(n) for n in columns.replicas[s, c, :variants])


def _market(needs: Sequence[ServiceNeed], limits: Limits, columns: Columns) -> _Market:
    """Return the limits that somebody falls under, and who uses how much of them."""
    number: dict[Key, int] = {}
    most: list[float] = []
    each: list[dict[int, dict[int, float]]] = []  # of a service: limit -> variant -> of a replica
    for need in needs:
        own: dict[int, dict[int, float]] = {}
        for i, variant in enumerate(need.variants):
            for key, limit, amount in _limits_on(need, variant, limits):
                if key not in number:
                    number[key] = len(most)
                    most.append(limit * (1 + COVER_SLACK))
                own.setdefault(number[key], {})[i] = amount
        each.append(own)
    widest = max(1, *(len(own) for own in each))
    under = np.full((len(needs), widest), len(most))
    amounts = np.zeros((len(needs), widest, columns.replicas.shape[2]))
    for s, own in enumerate(each):
        for at, (k, variants) in enumerate(own.items()):
            under[s, at] = k
            amounts[s, at, list(variants)] = list(variants.values())
    use = np.einsum("scv,slv->slc", columns.replicas, amounts)
    return _Market(np.array([*most, np.inf]), under, use)


def _limits_on(
    need: ServiceNeed, variant: VariantNeed, limits: Limits
) -> list[tuple[Key, float, float]]:
    """Return (name, limit, what a replica uses of it) of all that bounds a variant together with others."""
    name, pool = variant.accelerator_class, limits.class_pool.get(variant.accelerator_class, "")
    namespace, gpus = (pool, need.namespace), float(variant.accelerators)
    found = [
        (("class", name), limits.class_accelerators.get(name), gpus),
        (("namespace", *namespace), limits.namespace_accelerators.get(namespace), gpus),
        (("budget", pool), limits.pool_budget_usd_per_hour.get(pool), variant.usd_per_hour),
    ]
    return [(k, float(most), x) for k, most, x in found if most is not None and np.isfinite(most)]


def _settle(market: _Market, usd: FloatArray) -> FloatArray:
    """Return the prices of the limits at which the bound is highest: exact along one line after another.

    Each limit's own price, all of them together, and on in the direction of the last round: goods that
    stand in for each other are dear together, and prices that rise in turn come there slowly.
    """
    prices = np.zeros(market.most.size)
    for _ in range(ROUNDS):
        before = prices.copy()
        for k in range(market.most.size - 1):
            along = np.zeros_like(prices)
            along[k] = 1.0
            prices = _highest(market, usd, prices, along)
        prices = _highest(market, usd, prices, prices)
        prices = _highest(market, usd, prices, prices - before)
        if (np.abs(prices - before) <= CALM * prices).all():
            break
    return prices


def _highest(market: _Market, usd: FloatArray, prices: FloatArray, along: FloatArray) -> FloatArray:
    """Return prices, none negative, on a line through `prices` where the bound is highest."""
    touched = np.flatnonzero(along[market.under].any(axis=1))
    if not touched.size:
        return prices
    total = usd[touched] + market.priced(prices, touched)
    step = market.priced(along, touched)
    rows = np.arange(touched.size)
    supply = along[:-1] @ market.most[:-1]

    def rises(t: float) -> bool:
        chosen = (total + t * step).argmin(axis=1)
        return bool(step[rows, chosen].sum() > supply)

    down, up = along < 0, along > 0
    last = LAST_USD / float(np.abs(along).max())
    last = float((prices[down] / -along[down]).min(initial=last))
    if rises(0.0):
        low, high = 0.0, FIRST_USD / float(np.abs(along).max())
        while high < last and rises(high):
            low, high = high, 4.0 * high
        high = min(high, last)
    else:
        low, high = -float((prices[up] / along[up]).min(initial=LAST_USD)), 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) else (low, middle)
    return np.maximum(prices + high * along, 0.0)


def _trim(market: _Market, total: FloatArray, chosen: IntArray, left: FloatArray) -> bool:
    """Take what exceeds a limit from who loses least by it; False where nobody has a plan that does.

    Changes `chosen` (S,) and `left` (K + 1,).
    """
    rows = np.arange(chosen.size)
    while (left < 0).any():
        here = left[market.under][..., np.newaxis]
        less = market.use[rows, :, chosen][..., np.newaxis] - market.use
        frees = np.minimum(less, np.maximum(-here, 0.0)).sum(axis=1)
        fits = (-less <= np.maximum(here, 0.0)).all(axis=1)
        possible = fits & (frees > 0) & np.isfinite(total)
        if not possible.any():
            return False
        loss = total - total[rows, chosen][:, np.newaxis]
        each = np.where(possible, loss / np.where(possible, frees, 1.0), np.inf)
        s, c = np.unravel_index(each.argmin(), each.shape)
        market.take(int(s), int(c), chosen, left)
    return True


def _fill(
    market: _Market, priced: FloatArray, usd: FloatArray, chosen: IntArray, left: FloatArray
) -> None:
    """Give what is left of every limit to who gains most for its price; changes `chosen` and `left`."""
    everybody = np.arange(chosen.size)
    for _ in range(FILLS):
        worth = _worth(market, priced, usd, chosen, left, everybody).max(axis=1)
        better = np.flatnonzero(worth > 0)
        for s in better[np.argsort(-worth[better], kind="stable")]:
            own = _worth(market, priced, usd, chosen, left, np.array([s]))[0]
            if own.max() > 0:
                market.take(int(s), int(own.argmax()), chosen, left)
        if not better.size:
            return


def _worth(
    market: _Market,
    priced: FloatArray,
    usd: FloatArray,
    chosen: IntArray,
    left: FloatArray,
    some: IntArray,
) -> FloatArray:
    """Return what each candidate of some services saves, per dollar of scarce things; 0: it does not."""
    now = chosen[some]
    more = market.use[some] - market.use[some, :, now][..., np.newaxis]
    fits = (more <= left[market.under[some]][..., np.newaxis]).all(axis=1)
    saves = usd[some, now][:, np.newaxis] - usd[some]
    takes = np.maximum(priced[some] - priced[some, now][:, np.newaxis], COVER_SLACK)
    worth: FloatArray = np.where(fits & (saves > COVER_SLACK), saves / takes, 0.0)
    return worth
