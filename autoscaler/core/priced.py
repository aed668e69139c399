"""Very many services where limits bind: a price for what is scarce, and every service chooses for itself.

The Lagrangian of the planner's problem: with a price on each limit the services part, and each takes the
cheapest of its candidate plans (autoscaler.core.columns). The services' cheapest choices at any prices, less
what the limits are worth at them, cost no more than any choice that keeps the limits; the prices at which
that bound is highest are the right ones (Everett, Generalized Lagrange multiplier method, Op. Res. 11, 1963;
Geoffrion, Lagrangean relaxation for integer programming, Math. Prog. Study 2, 1974). What is then a few
replicas too much is taken from who loses least, what is left goes to who gains most for its price. With few
limits and many services the bound is tight: it tells how much a better choice could save.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.columns import Columns, columns_of
from autoscaler.core.needs import COVER_SLACK, Limits, ServiceNeed, usage_of

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
    alone: Callable[[ServiceNeed], tuple[int, ...] | None],
) -> tuple[Mapping[str, tuple[int, ...]], float] | None:
    """Return (replicas per service, gap), or None where not even the least of everybody fits.

    `alone` gives the best plan of a service that has everything to itself: taken where nothing that it
    uses is scarce. The gap is the share of the cost that a better choice could save.
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
    rows = np.arange(len(needs))
    cost = usd[rows, chosen].sum()
    counts = columns.replicas[:, rows, chosen].T.astype(np.int64).tolist()
    plan = {
        need.service: tuple(n[: len(need.variants)]) for need, n in zip(needs, counts, strict=True)
    }
    free = [need for need, most in zip(needs, priced.max(axis=1), strict=True) if most == 0]
    own = {need.service: best for need in free if (best := alone(need)) is not None}
    if own and usage_of(needs, plan | own, limits).fits():
        plan |= own
    return plan, max(0.0, float(1.0 - bound / max(cost, COVER_SLACK)))


def _market(needs: Sequence[ServiceNeed], limits: Limits, columns: Columns) -> _Market:
    """Return the limits that somebody falls under, and who uses how much of them."""
    shared = _Shared(limits)
    rows: list[
        tuple[int, int, int, int, float]
    ] = []  # service, its n-th limit, variant, limit, use
    for s, need in enumerate(needs):
        own: dict[int, int] = {}
        for i, variant in enumerate(need.variants):
            for k, in_usd in shared.over(need.namespace, variant.accelerator_class):
                use = variant.usd_per_hour if in_usd else variant.accelerators
                rows.append((s, own.setdefault(k, len(own)), i, k, use))
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 5)
    at, nth, variants, limit = numbers[:, :4].T.astype(np.int64)
    widest = int(nth.max(initial=0)) + 1
    under = np.full((len(needs), widest), len(shared.most))
    amounts = np.zeros((len(needs), widest, columns.replicas.shape[0]))
    under[at, nth], amounts[at, nth, variants] = limit, numbers[:, 4]
    use = np.einsum("vsc,slv->slc", columns.replicas, amounts)
    return _Market(np.array([*shared.most, np.inf]), under, use)


class _Shared:
    """The limits that somebody falls under, numbered as they are met; `most` is how much there is."""

    def __init__(self, limits: Limits) -> None:
        self.most: list[float] = []
        self._limits = limits
        self._number: dict[Key, int] = {}
        self._over: dict[tuple[str, str], list[tuple[int, bool]]] = {}

    def over(self, namespace: str, name: str) -> list[tuple[int, bool]]:
        """Return which limits bound a class in a namespace, and whether in dollars or accelerators."""
        known = self._over.get((namespace, name))
        if known is None:
            known = self._over[namespace, name] = self._meet(namespace, name)
        return known

    def _meet(self, namespace: str, name: str) -> list[tuple[int, bool]]:
        limits, pool = self._limits, self._limits.class_pool.get(name, "")
        found: list[tuple[Key, float | None, bool]] = [
            (("class", name), limits.class_accelerators.get(name), False),
            (
                ("namespace", pool, namespace),
                limits.namespace_accelerators.get((pool, namespace)),
                False,
            ),
            (("budget", pool), limits.pool_budget_usd_per_hour.get(pool), True),
        ]
        met = []
        for key, most, in_usd in found:
            if most is None or not np.isfinite(most):
                continue
            if key not in self._number:
                self._number[key] = len(self.most)
                self.most.append(float(most) * (1 + COVER_SLACK))
            met.append((self._number[key], in_usd))
        return met


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
    line = _Line(
        usd[touched] + market.priced(prices, touched),
        market.priced(along, touched),
        float(along[:-1] @ market.most[:-1]),
    )
    down, up = along < 0, along > 0
    last = LAST_USD / float(np.abs(along).max())
    last = float((prices[down] / -along[down]).min(initial=last))
    if line.rises(0.0):
        low, high = 0.0, FIRST_USD / float(np.abs(along).max())
        while high < last and line.rises(high):
            low, high = high, 4.0 * high
        high = min(high, last)
    else:
        low, high = -float((prices[up] / along[up]).min(initial=LAST_USD)), 0.0
    return np.maximum(prices + line.crossing(low, high) * along, 0.0)


class _Line:
    """What S services use of what a line of prices weighs, total + t * step (S, C), against its supply.

    Where it is more than the supply, the bound rises with t. Nobody uses more at a higher t.
    """

    def __init__(self, total: FloatArray, step: FloatArray, supply: float) -> None:
        self._total, self._step, self._supply = total, step, supply

    def rises(self, t: float) -> bool:
        """Return whether more is used at t than there is."""
        return bool(self._used(t).sum() > self._supply)

    def crossing(self, low: float, high: float) -> float:
        """Return where between two t the bound turns, from above, by HALVINGS.

        Who uses the same at both ends does so between them, and is not asked again: a few halvings on,
        that is nearly everybody.
        """
        most, least = self._used(low), self._used(high)
        for _ in range(HALVINGS):
            still = np.flatnonzero(most != least)
            if still.size <= most.size / 2:
                self._supply -= float(most.sum() - most[still].sum())
                self._total, self._step = self._total[still], self._step[still]
                most, least = most[still], least[still]
            middle = (low + high) / 2
            used = self._used(middle)
            if used.sum() > self._supply:
                low, most = middle, used
            else:
                high, least = middle, used
        return high

    def _used(self, t: float) -> FloatArray:
        """Return (S,) what each service uses at t."""
        chosen = (self._total + t * self._step).argmin(axis=1)
        used: FloatArray = self._step[np.arange(chosen.size), chosen]
        return used


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
    rows = np.arange(chosen.size)
    for _ in range(FILLS):
        more = market.use - market.use[rows, :, chosen][..., np.newaxis]
        saves = usd[rows, chosen][:, np.newaxis] - usd
        takes = np.maximum(priced - priced[rows, chosen][:, np.newaxis], COVER_SLACK)
        gains = np.where(saves > COVER_SLACK, saves / takes, 0.0)  # per dollar of scarce things
        fits = (more <= left[market.under][..., np.newaxis]).all(axis=1)
        worth = (fits * gains).max(axis=1)
        better = np.flatnonzero(worth > 0)
        for s in better[np.argsort(-worth[better], kind="stable")].tolist():
            fits_now = (more[s] <= left[market.under[s]][:, np.newaxis]).all(axis=0)
            own = fits_now * gains[s]
            if own.max() > 0:
                market.take(s, int(own.argmax()), chosen, left)
        if not better.size:
            return
