"""All services at once, where limits bind: a mixed-integer programme solved by HiGHS.

    min   sum  (usd_v + restart_v) m_v + start_v (u_v + n_v - m_v)
          + sum  price_s (z1_s + 3 z2_s + 9 z3_s + e_s)  +  sum  over_s b_s + share_s y_s
    s.t.  sum_v m_v / future_v + z1_s + z2_s + z3_s >= 1      every phase of every service
          sum_v k_v / hold_v >= min(1, sum_v current_v / hold_v) - e_s     keep what is needed
          sum_v r_v / present_v >= min(1, sum_v ready_v / present_v) - e_s  make before break
          sum_(v stays) m_v / future_v + y_s >= floor_s     of a phase with spot; y_s <= floor_s b_s
          k_v <= n_v, k_v <= current_v;  r_v <= n_v, r_v <= ready_v;  u_v >= m_v - current_v
          lower_v <= m_v <= n_v <= upper_v, integer; b_s 0 or 1; z each <= 1/3; the rest continuous
          accelerators per class and namespace, $/h per service and pool, all of n

m_v lasts and covers the future; n_v runs and may keep more for a while (autoscaler.core.separable).
z_s is the share of service s that does not fit, in three parts of a third each, and e_s the share of
its coming load that running replicas would have served and that is given up. Their prices exceed what
any plan could save, and each priority tier's exceed all the tiers below it together, up to TIERS tiers
(beyond, the lowest share one): who degrades is the priorities' choice.

y_s is the share of service s that rests on spot beyond its cap, b_s whether any does. Their prices exceed
what spot saves (autoscaler.core.needs) and stay below those of a share that does not fit.

Within a tier the worse off is served first, since each third is dearer than the one before. What runs
and is needed is only taken from a service for an equal that lacks a third more, and while its counts changed
of late only for one that lacks more than two thirds and has less itself: what starts anew serves nobody for
minutes, so that between two that are about as badly off nothing moves to and fro.

Bounded by nodes and gap, not by the clock, so that the answer is the same on every machine
(HiGHS: Huangfu and Hall, Math. Prog. Comp. 10, 2018; through scipy.optimize.milp).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from autoscaler.core.needs import Limits, ServiceNeed

MAX_NODES = 20_000
GAP_RATIO = 3e-5
SHORT_PRICE = (
    30.0  # of a service that does not fit at all, in what it would cost: no plan saves as much
)
TIERS = 4
TIER_STEP = 30.0
KINDS = 5  # of variables per variant: n, u, k, r, m
SHORT_PRICES = (
    1.0,
    3.0,
    9.0,
)  # of each third of a service that does not fit, in prices of its tier
GIVEN_UP_PRICE = 1.0  # of running replicas that are needed, beside what is then short
UNSETTLED_PRICE = 2.5  # of the same, while a service's counts changed of late
PER_SERVICE = len(SHORT_PRICES) + 3


class _Rows:
    """Collects sparse rows `low <= a x <= high`."""

    def __init__(self) -> None:
        self.row: list[int] = []
        self.column: list[int] = []
        self.value: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, terms: Mapping[int, float], low: float, high: float) -> None:
        at = len(self.low)
        for column, value in terms.items():
            self.row.append(at)
            self.column.append(column)
            self.value.append(value)
        self.low.append(low)
        self.high.append(high)

    def constraint(self, columns: int) -> LinearConstraint:
        shape = (len(self.low), columns)
        matrix = coo_array((self.value, (self.row, self.column)), shape=shape).tocsr()
        return LinearConstraint(matrix, np.array(self.low), np.array(self.high))


class _Layout:
    """Where each variable stands: n, u, k, r, m of every variant, then z, e, y and b of every service."""

    def __init__(self, needs: tuple[ServiceNeed, ...]) -> None:
        self.first: dict[str, int] = {}
        at = 0
        for need in needs:
            self.first[need.service] = at
            at += len(need.variants)
        self.variants = at
        self._service = {need.service: KINDS * at + PER_SERVICE * s for s, need in enumerate(needs)}
        self.columns = KINDS * at + PER_SERVICE * len(needs)

    def n(self, service: str, i: int) -> int:
        return self.first[service] + i

    def u(self, service: str, i: int) -> int:
        return self.variants + self.n(service, i)

    def k(self, service: str, i: int) -> int:
        return 2 * self.variants + self.n(service, i)

    def r(self, service: str, i: int) -> int:
        return 3 * self.variants + self.n(service, i)

    def m(self, service: str, i: int) -> int:
        return 4 * self.variants + self.n(service, i)

    def z(self, service: str) -> range:
        at = self._service[service]
        return range(at, at + len(SHORT_PRICES))

    def e(self, service: str) -> int:
        return self._service[service] + len(SHORT_PRICES)

    def y(self, service: str) -> int:
        return self.e(service) + 1

    def b(self, service: str) -> int:
        return self.e(service) + 2


def solve(
    needs: tuple[ServiceNeed, ...], limits: Limits
) -> tuple[Mapping[str, tuple[int, ...]], str, float] | None:
    """Return (replicas per service, "optimal" or "incumbent", gap), or None without any plan.

    The gap is the share of the cost that a cheaper plan could save; NaN where the solver has no bound.
    """
    layout = _Layout(needs)
    cost, low, high, integral = _variables(needs, layout)
    rows = _Rows()
    for need in needs:
        _service_rows(rows, need, layout)
    _shared_rows(rows, needs, layout, limits)
    result = milp(
        cost,
        integrality=integral,
        bounds=Bounds(low, high),
        constraints=rows.constraint(layout.columns),
        options={"node_limit": MAX_NODES, "mip_rel_gap": GAP_RATIO},
    )
    if result.x is None:
        return None
    whole = np.rint(result.x[: layout.variants]).astype(int)
    plan = {
        need.service: tuple(
            int(whole[layout.n(need.service, i)]) for i in range(len(need.variants))
        )
        for need in needs
    }
    gap = math.nan if result.mip_gap is None else float(result.mip_gap)
    status = "optimal" if result.status == 0 else "incumbent"
    return plan, status, gap if math.isfinite(gap) else math.nan


def _variables(
    needs: tuple[ServiceNeed, ...], layout: _Layout
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    cost = np.zeros(layout.columns)
    low = np.zeros(layout.columns)
    high = np.full(layout.columns, np.inf)
    integral = np.zeros(layout.columns)
    for need, price in zip(needs, lack_prices_usd(needs), strict=True):
        given_up_usd = given_up_times(need) * price
        for i, v in enumerate(need.variants):
            n, m = layout.n(need.service, i), layout.m(need.service, i)
            cost[n] = v.start_usd
            cost[m] = v.usd_per_hour + v.restart_usd_per_hour - v.start_usd
            for column in (n, m):
                low[column], high[column], integral[column] = v.lower, v.upper, 1
            cost[layout.u(need.service, i)] = v.start_usd
            high[layout.k(need.service, i)] = v.current
            high[layout.r(need.service, i)] = v.ready
        for column, times in zip(layout.z(need.service), SHORT_PRICES, strict=True):
            cost[column], high[column] = times * price, 1.0 / len(SHORT_PRICES)
        cost[layout.e(need.service)] = given_up_usd
        high[layout.e(need.service)] = 1.0
        y, b = layout.y(need.service), layout.b(need.service)
        cost[b], cost[y] = need.excess_prices_usd()
        high[y] = need.highest_stay_floor()
        high[b], integral[b] = math.ceil(high[y]), 1
    return cost, low, high, integral


def lack_prices_usd(needs: Sequence[ServiceNeed]) -> list[float]:
    """Return the price of a service's share that does not fit, in $ of the next hour for all of it."""
    tiers = sorted({need.priority for need in needs})
    rank = {p: max(0, i - max(0, len(tiers) - TIERS)) for i, p in enumerate(tiers)}
    prices = []
    for need in needs:
        alone = max(
            (v.usd_per_hour + v.restart_usd_per_hour + v.start_usd) * v.future
            for v in need.variants
        )
        prices.append(SHORT_PRICE * max(alone, 1.0) * TIER_STEP ** rank[need.priority])
    return prices


def given_up_times(need: ServiceNeed) -> float:
    """Return the price of running replicas that are needed and given up, in that of what does not fit."""
    return UNSETTLED_PRICE if need.unsettled else GIVEN_UP_PRICE


def _service_rows(rows: _Rows, need: ServiceNeed, layout: _Layout) -> None:
    name = need.service
    short = dict.fromkeys(layout.z(name), 1.0)
    given_up = {layout.e(name): 1.0}
    for phase in need.phases():
        cover = {layout.m(name, i): 1.0 / need.variants[i].future for i in phase}
        rows.add({**cover, **short}, 1.0, np.inf)
        keep = {layout.k(name, i): 1.0 / need.variants[i].hold for i in phase}
        rows.add({**keep, **given_up}, need.hold_floor(phase, starting=True), np.inf)
        ready = {layout.r(name, i): 1.0 / need.variants[i].present for i in phase}
        rows.add({**ready, **given_up}, need.hold_floor(phase, starting=False), np.inf)
        if (floor := need.stay_floor(phase)) > 0:
            stays = {layout.m(name, i): 1.0 / need.variants[i].future for i in need.kinds(phase)[0]}
            rows.add({**stays, layout.y(name): 1.0}, floor, np.inf)
    if (most := need.highest_stay_floor()) > 0:
        rows.add({layout.y(name): 1.0, layout.b(name): -most}, -np.inf, 0.0)
    for i, v in enumerate(need.variants):
        n, m = layout.n(name, i), layout.m(name, i)
        rows.add({m: 1.0, n: -1.0}, -np.inf, 0.0)
        rows.add({m: 1.0, layout.u(name, i): -1.0}, -np.inf, v.current)
        rows.add({layout.k(name, i): 1.0, n: -1.0}, -np.inf, 0.0)
        rows.add({layout.r(name, i): 1.0, n: -1.0}, -np.inf, 0.0)
    if np.isfinite(need.budget_usd_per_hour):
        spend = {layout.n(name, i): v.usd_per_hour for i, v in enumerate(need.variants)}
        rows.add(spend, -np.inf, need.budget_usd_per_hour)


def _shared_rows(
    rows: _Rows, needs: tuple[ServiceNeed, ...], layout: _Layout, limits: Limits
) -> None:
    by_class: dict[str, dict[int, float]] = {}
    by_namespace: dict[tuple[str, str], dict[int, float]] = {}
    by_pool: dict[str, dict[int, float]] = {}
    for need in needs:
        for i, v in enumerate(need.variants):
            n = layout.n(need.service, i)
            by_class.setdefault(v.accelerator_class, {})[n] = float(v.accelerators)
            pool = limits.class_pool.get(v.accelerator_class)
            if pool is not None:
                by_namespace.setdefault((pool, need.namespace), {})[n] = float(v.accelerators)
                by_pool.setdefault(pool, {})[n] = v.usd_per_hour
    for name, count in limits.class_accelerators.items():
        if name in by_class:
            rows.add(by_class[name], -np.inf, float(count))
    for key, quota in limits.namespace_accelerators.items():
        if key in by_namespace:
            rows.add(by_namespace[key], -np.inf, float(quota))
    for pool, usd in limits.pool_budget_usd_per_hour.items():
        if pool in by_pool and np.isfinite(usd):
            rows.add(by_pool[pool], -np.inf, usd)
