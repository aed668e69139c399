"""Why a service has the replicas it has: one logged decision in five lines, for people, and its last hour."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Outlook
from autoscaler.core.types import Observation, Policies, Policy, ServiceObservation
from autoscaler.edge.decision_changes import NOTHING, Inputs
from autoscaler.edge.decision_log import Entry
from autoscaler.explain_hour import hour_in_words

NEAR = 0.005  # of a ratio: not worth telling apart
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Decided:
    """One service's part of a logged tick. `decision` is the log's own object; null is None.

    `before`: replicas decided at the tick before the last change, None if the log begins with these.
    `since_seconds`: when these counts were decided first.
    """

    service: str
    policy: Policy | None
    observation: Observation
    outlook: Outlook | None
    decision: Mapping[str, Any]
    before: int | None
    since_seconds: float
    plan_status: str = ""  # of the tick's plan over all services
    plan_gap_ratio: float | None = None
    account: Account | None = None  # of the last hour that was closed by then

    @property
    def replicas(self) -> int:
        """Return the count over all variants."""
        return sum(int(v["replicas"]) for v in self.decision["variants"].values())


def decided_at(
    service: str,
    policies: Policies,
    entries: Iterator[Entry],
    until_seconds: float,
    earlier: Decided | None = None,
) -> Decided | None:
    """Return the last decision of a service at or before a time, `earlier` if these entries have none.

    `earlier` is what was found in the log's files before.
    """
    known = Inputs(policies, NOTHING.starts, NOTHING.state)
    outlooks: Mapping[str, Outlook] = {}
    found = earlier
    account = None if earlier is None else earlier.account
    for entry in entries:
        if entry.observation.now_seconds > until_seconds:
            break
        known = entry.changed(known)
        outlooks = outlooks if entry.outlooks is None else entry.outlooks
        account = entry.accounts.get(service, account)
        tick = json.loads(entry.line)["decision"]
        decision = tick["services"].get(service)
        if decision is None:
            continue
        before, since = None, entry.observation.now_seconds
        if found is not None:
            same = found.decision["variants"] == decision["variants"]
            before = found.before if same else found.replicas
            since = found.since_seconds if same else since
        policy = known.policies.services.get(service)
        found = Decided(
            service,
            policy,
            entry.observation,
            outlooks.get(service),
            decision,
            before,
            since,
            str(tick.get("plan_status", "")),
            tick.get("plan_gap_ratio"),
            account,
        )
    return found


def in_words(decided: Decided) -> list[str]:
    """Return five lines: the count, the load, the fleet, what is needed, what comes of it.

    Two more on the last hour that was closed, where the log has one (autoscaler.explain_hour).
    """
    hour = [] if decided.account is None else hour_in_words(decided.account)
    return [
        _count(decided),
        f"  load    {_load(decided)}",
        f"  fleet   {_fleet(decided)}",
        f"  needed  {_needed(decided)}",
        f"  so      {_outcome(decided)}",
        *(f"  {line}" for line in hour),
    ]


def _count(decided: Decided) -> str:
    d, variants = decided.decision, decided.decision["variants"]
    split = ""
    if len(variants) > 1:
        counts = [f"{name} {v['replicas']}" for name, v in variants.items()]
        split = f" ({', '.join(counts)})"
    since = ""
    if decided.before is not None:
        since = f", {decided.before} until {_clock(decided.since_seconds)}"
    return (
        f"{decided.service} at {_time(decided.observation.now_seconds)}: "
        f"{decided.replicas} replicas{split}{since} [{d['reason']}] {d['detail']}"
    )


def _load(decided: Decided) -> str:
    d, seen = decided.decision, decided.observation.services.get(decided.service)
    parts = []
    if seen is None or math.isnan(seen.arrival_rate_rps):
        parts.append("nothing measured now")
    else:
        tokens = f"{_number(seen.isl_tokens)} tokens in, {_number(seen.osl_tokens)} out"
        parts.append(f"{_number(seen.arrival_rate_rps)} req/s now ({tokens})")
    if d["forecast_median_rps"] is None:
        parts.append("no forecast")
    else:
        ahead = f"{_number(d['forecast_median_rps'])} req/s expected {_span(d['horizon_seconds'])} ahead"
        trust = "" if d["trusted"] else "; no better than the last value"
        parts.append(f"{ahead}, 95 % sure below {_number(d['forecast_upper_rps'])}{trust}")
    return "; ".join(parts)


def _fleet(decided: Decided) -> str:
    seen = decided.observation.services.get(decided.service)
    if seen is None or not seen.variants:
        return "not observed"
    parts = []
    for name, v in seen.variants.items():
        draining = f", {v.draining} draining" if v.draining else ""
        parts.append(f"{name}: {v.ready} ready, {v.starting} starting{draining}")
    running, waiting = (_total(seen, name) for name in ("running", "waiting"))
    parts.append(f"{_number(running)} requests running, {_number(waiting)} waiting")
    targets = decided.policy.targets if decided.policy is not None else None
    for name in ("ttft", "tpot"):
        worst = max(
            (getattr(v, f"{name}_p95_seconds") for v in seen.variants.values()),
            key=lambda s: -math.inf if math.isnan(s) else s,
        )
        target = math.inf if targets is None else getattr(targets, f"{name}_seconds")
        if math.isfinite(worst):
            allowed = f" of {_seconds(target)} allowed" if math.isfinite(target) else ""
            parts.append(f"{name.upper()} p95 {_seconds(worst)}{allowed}")
    return "; ".join(parts)


def _needed(decided: Decided) -> str:
    d = decided.decision
    aim = f"{d['required_replicas']} replicas to hold the SLO for {_ratio(d['attainment_target_ratio'])}"
    if decided.policy is not None:
        aim += f" of requests ({_ratio(decided.policy.attainment)} asked"
        aim += f", {_ratio(d['error_budget_left_ratio'], 0)} of the error budget left)"
    else:
        aim += f" of requests ({_ratio(d['error_budget_left_ratio'], 0)} of the error budget left)"
    if d["needed_replicas"] is not None:
        aim += f"; the load measured now needs {d['needed_replicas']:g}"
    return f"{aim}; {_bounds(decided)}"


def _bounds(decided: Decided) -> str:
    d = decided.decision
    if d["shortfall_ratio"] and d["shortfall_ratio"] > 0:
        return f"{_ratio(d['shortfall_ratio'], 0)} of it does not fit"
    if decided.policy is None:
        return "its policy is not in the log"
    least = sum(v.min_replicas for v in decided.policy.variants)
    most = sum(v.max_replicas for v in decided.policy.variants)
    return f"{least} to {most} allowed"


def _outcome(decided: Decided) -> str:
    d = decided.decision
    if d["predicted_attainment_ratio"] is None:
        parts = ["attainment not predicted: no latency model"]
    else:
        parts = [f"{_ratio(d['predicted_attainment_ratio'])} of requests predicted within the SLO"]
    for name in ("ttft", "tpot"):
        if d[f"predicted_{name}_p95_seconds"] is not None:
            parts.append(f"{name.upper()} p95 {_seconds(d[f'predicted_{name}_p95_seconds'])}")
    if d["forecast_arrival_rate_rps"] is not None:
        parts.append(f"carries {_number(d['forecast_arrival_rate_rps'])} req/s")
    cost = d["cost_usd_per_hour"]
    parts.append("no price known" if cost is None else f"${cost:,.2f} an hour")
    return "; ".join(parts + _proof(decided))


def _proof(decided: Decided) -> list[str]:
    """Say how the plan was found where it is not proven to be the cheapest."""
    gap = decided.plan_gap_ratio
    if decided.plan_status == "greedy":
        return ["planned by priority, since the solver found no plan"]
    how = {
        "incumbent": "the solver stopped at its bound",
        "priced": "planned by prices for what is scarce",
    }
    if decided.plan_status not in how:
        return []
    most = "" if gap is None else f": at most {_ratio(gap)} of the cost of all plans could be saved"
    return [how[decided.plan_status] + most]


def _total(seen: ServiceObservation, name: str) -> float:
    values = [getattr(v, name) for v in seen.variants.values()]
    known = [x for x in values if math.isfinite(x)]
    return sum(known) if known else math.nan


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _ratio(value: float | None, decimals: int = 1) -> str:
    return UNKNOWN if value is None else f"{value:.{decimals}%}"
