"""Reality overrules: stabilization, rate limits, schedules, the reactive signals. Small pure steps."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from autoscaler.core.types import Policy, ScalingRules, ScheduleWindow, ServiceObservation, Variant

SETTLE_SECONDS = 360.0  # how long a little more must be needed
EASE_SECONDS = 300.0  # how long a little less must do
TURNS_SECONDS = 1800.0
UNSETTLED_SECONDS = 7200.0  # after any change: who changed once most often changes again
CALMING = 2.0
MAX_CALM_SECONDS = 600.0
WARY = 4.0
LITTLE = 0.1  # of what runs, but at least one replica of LITTLE_FROM or more
LITTLE_FROM = 2
MAX_PERIOD_SECONDS = 1800.0  # the longest rate-limit period that a policy may name
WAITING_PER_REPLICA = 1.0  # a queue longer than this, beside missed SLOs, is a backlog
CONCURRENCY_PER_REPLICA = (
    8.0  # where nothing is learned: modest for any accelerator that serves LLMs
)
CALM_RATIO = 0.5  # latency below this share of the target may give one replica back

Holds = tuple[tuple[float, int], ...]
Changes = tuple[tuple[float, Mapping[str, int]], ...]


def stabilized(
    past: Holds,
    now_seconds: float,
    value: int,
    window_seconds: float,
    current: int,
    ease_seconds: float = EASE_SECONDS,
) -> tuple[Holds, int]:
    """Return the updated window and its maximum: a scale-down waits until the window agrees.

    The policy's window, and `ease_seconds` if that leaves but a little less than runs (`lasting`); a
    window of 0 asks for no waiting at all.
    No past at all (a controller that has just started) remembers what runs, as HPA does: a restart
    lowers nothing. Only what can still be the maximum is kept: nothing that a later count exceeds.
    """
    begin = now_seconds - (max(window_seconds, ease_seconds) if window_seconds > 0 else 0.0)
    kept = [h for h in past or ((now_seconds, current),) if h[0] > begin and h[1] > value]
    if not kept:
        return ((now_seconds, value),), value
    begin = now_seconds - window_seconds
    highest = max([n for t, n in kept if t > begin], default=value)
    if current - _little(current) <= highest < current:
        highest = max([n for _, n in kept])
    return (*kept, (now_seconds, value)), highest


def runs_alone(
    phases: Sequence[tuple[int, ...]], has: Sequence[int], alone: Sequence[int]
) -> list[int]:
    """Return, for each variant, how many of it alone carry what now runs of all that serve its phase.

    `alone`: how many of each would be needed if it had to serve everything.
    """
    if len(has) == 1:
        return list(has)
    needed = [max(1, n) for n in alone]
    worth = [n / most for n, most in zip(has, needed, strict=True)]
    carried = [0.0] * len(has)
    for phase in phases:
        share = sum([worth[i] for i in phase])
        for i in phase:
            carried[i] = max(carried[i], share)
    return [round(share * most) for share, most in zip(carried, needed, strict=True)]


def _little(current: int) -> int:
    """Return how many replicas are but a little beside what runs; 0 where every one matters."""
    return max(1, int(LITTLE * current)) if current >= LITTLE_FROM else 0


def calmed(window_seconds: float, turned: int) -> float:
    """Return the scale-down window of a variant that may swing: longer after each turn of the last while.

    The window grows by a factor of CALMING with each turn, to no more than MAX_CALM_SECONDS; a longer one
    that the policy asks for stays.
    """
    if not turned:
        return window_seconds
    return max(window_seconds, min(window_seconds * CALMING**turned, MAX_CALM_SECONDS))


def dearer_start_usd(start_usd: float, usd_per_hour: float, turned: int) -> float:
    """Return the price of a start to plan with: a variant that swings may well stop again before it pays.

    WARY times as much for each turn of the last while, and once where its service is `unsettled`, up to an
    hour of the replica. Without it a service whose variants cost nearly the same goes to and fro between
    them with the noise of every forecast.
    """
    if not turned:
        return start_usd
    return max(start_usd, min(start_usd * WARY**turned, usd_per_hour))


def turns(changes: Changes, variant: str, now_seconds: float) -> int:
    """Return how often a variant rose after a fall, or fell after a rise, within TURNS_SECONDS."""
    if len(changes) < 3:  # a rise and a fall are three counts
        return 0
    since = now_seconds - TURNS_SECONDS
    found, later, rose = 0, None, None
    for seconds, counts in reversed(changes):
        count = counts.get(variant)
        if count is None:
            continue
        if later is not None and count != later:
            found += rose is not None and rose != (count < later)
            rose = count < later
        later = count
        if seconds <= since:  # what was in force when the while began
            break
    return found


def unsettled(changes: Changes, now_seconds: float) -> bool:
    """Whether any count of a service changed within UNSETTLED_SECONDS."""
    return bool(changes) and changes[-1][0] > now_seconds - UNSETTLED_SECONDS


def lasting(
    past: Holds,
    now_seconds: float,
    value: int,
    window_seconds: float,
    current: int,
    settle_seconds: float = SETTLE_SECONDS,
) -> tuple[Holds, int]:
    """Return the updated window and what has lasted: a scale-up waits until the demand has.

    The least count of the policy's window, and of `settle_seconds` if that is but a little more than runs:
    every forecast differs a little from the one before, and what follows each of them swings.
    No past at all (a controller that has just started) follows at once: too many is the safer error.
    Only what can still be the least is kept.
    """
    begin = now_seconds - max(window_seconds, settle_seconds)
    kept = [h for h in past if h[0] > begin and h[1] < value]
    if not kept:
        return ((now_seconds, value),), value
    begin = now_seconds - window_seconds
    wanted = min([n for t, n in kept if t > begin], default=value)
    if current < wanted <= current + _little(current):
        begin = now_seconds - settle_seconds
        wanted = min([n for t, n in kept if t > begin], default=value)
    return (*kept, (now_seconds, value)), wanted


def remember_change(
    changes: Changes, now_seconds: float, before: Mapping[str, int], desired: Mapping[str, int]
) -> Changes:
    """Return the history of desired counts, long enough for any rate-limit period.

    `before` is what was desired until now, where nothing is remembered yet.
    """
    if not changes:
        changes = ((-math.inf, dict(before)),)
    if changes[-1][1] == desired:
        return changes
    start = now_seconds - MAX_PERIOD_SECONDS
    recent = [c for c in changes if c[0] > start]
    earlier = [c for c in changes if c[0] <= start]
    return (*earlier[-1:], *recent, (now_seconds, dict(desired)))


def count_at(changes: Changes, seconds: float, variant: str, default: int) -> int:
    """Return the desired count that was in force at a time; the oldest known before that."""
    value = default
    for t, desired in reversed(changes):
        value = desired.get(variant, value)
        if t <= seconds:
            break
    return value


def bounds(
    policy: Policy, variant: Variant, current: int, changes: Changes, now_seconds: float
) -> tuple[int, int]:
    """Return the least and the most replicas that the rate limits allow now, within min and max."""
    behavior = policy.behavior
    if not behavior.scale_up.limits and not behavior.scale_down.limits:
        return min(variant.min_replicas, variant.max_replicas), variant.max_replicas
    high = _limit(behavior.scale_up, variant.name, current, changes, now_seconds, up=True)
    low = _limit(behavior.scale_down, variant.name, current, changes, now_seconds, up=False)
    least = min(max(variant.min_replicas, low), variant.max_replicas)
    most = min(variant.max_replicas, max(high, least))
    return least, most


def _limit(
    rules: ScalingRules, name: str, current: int, changes: Changes, now_seconds: float, *, up: bool
) -> int:
    if not rules.limits:
        return 1_000_000 if up else 0
    allowed = []
    for limit in rules.limits:
        base = count_at(changes, now_seconds - limit.period_seconds, name, current)
        # a percentage of nothing would never wake a service: the first replica is its measure
        whole = max(base, 1) if up else base
        step = whole * limit.value / 100.0 if limit.percent else limit.value
        allowed.append(math.ceil(base + step) if up else math.floor(base - step))
    # the most generous limit counts, as in HPA; what runs is never taken back by a limit
    return max(current, *allowed) if up else min(current, *allowed)


def active_windows(policy: Policy, now_seconds: float) -> list[ScheduleWindow]:
    """Return the schedule's windows that cover this moment."""
    return [w for w in policy.schedule if _covers(w, now_seconds)]


def _covers(window: ScheduleWindow, seconds: float) -> bool:
    if window.from_seconds is not None and window.until_seconds is not None:
        return window.from_seconds <= seconds < window.until_seconds
    local = datetime.fromtimestamp(seconds, UTC).astimezone(ZoneInfo(window.time_zone))
    second = local.hour * 3600 + local.minute * 60 + local.second
    days = window.days or tuple(range(7))
    if window.start_second < window.end_second:
        return local.weekday() in days and window.start_second <= second < window.end_second
    # past midnight: the day that counts is the one on which the window began
    yesterday = (local - timedelta(days=1)).weekday()
    started_today = local.weekday() in days and second >= window.start_second
    return started_today or (yesterday in days and second < window.end_second)


def in_trouble(policy: Policy, observation: ServiceObservation) -> bool:
    """Whether requests wait and miss their objectives now: the queue is a backlog, not a batch."""
    for v in observation.variants.values():
        if v.waiting <= 0:
            continue
        if v.ready == 0 and v.waiting > 0:
            return True
        waiting = math.isnan(v.waiting) or v.waiting > WAITING_PER_REPLICA * max(1, v.ready)
        late = v.ttft_p95_seconds > policy.targets.ttft_seconds
        slow = v.tpot_p95_seconds > policy.targets.tpot_seconds
        missed = v.slo_attainment_ratio < policy.attainment
        if waiting and (late or slow or missed):
            return True
    return False


def backlog_requests(observation: ServiceObservation) -> float:
    """Return the requests that wait, beyond one a ready replica; NaN counts as none known."""
    waiting = 0.0
    for v in observation.variants.values():
        if math.isfinite(v.waiting):
            waiting += max(0.0, v.waiting - WAITING_PER_REPLICA * v.ready)
    return waiting


def unmodelled_replicas(policy: Policy, observation: ServiceObservation, current: int) -> int:
    """Return a count from measured latency and concurrency, where no latency model exists.

    Latency beyond its target: more, in proportion, at most twice as many. Within it: what runs, one more
    while more waits than is served, one fewer while latency is far below and nothing waits. Only where no
    latency is measured does concurrency decide, over CONCURRENCY_PER_REPLICA: how much a replica takes is
    not known, and a lost models volume must not turn a healthy fleet into one of maxReplicas.
    """
    running, waiting = _in_flight(observation)
    pressure = _pressure(policy, observation)
    if math.isnan(pressure):
        if any(v.ready > 0 and math.isnan(v.running) for v in observation.variants.values()):
            return current  # what serves is not known: no reason to give anything up
        wanted = math.ceil((running + waiting) / CONCURRENCY_PER_REPLICA)
        return max(wanted, 1, current - 1 if waiting == 0 else current)
    if pressure > 1.0:
        return max(math.ceil(current * min(pressure, 2.0)), current + 1)
    if pressure < CALM_RATIO and waiting == 0:
        return max(current - 1, 1)
    return max(current + 1 if waiting > running else current, 1)


def _in_flight(observation: ServiceObservation) -> tuple[float, float]:
    """Return running and waiting requests over all variants; what is not known counts as none."""
    variants = observation.variants.values()
    running = sum(v.running for v in variants if math.isfinite(v.running))
    return running, sum(v.waiting for v in variants if math.isfinite(v.waiting))


def _pressure(policy: Policy, observation: ServiceObservation) -> float:
    """Return the worst measured latency over its target; NaN where none is measured."""
    ratios = [
        measured / target
        for v in observation.variants.values()
        for measured, target in (
            (v.ttft_p95_seconds, policy.targets.ttft_seconds),
            (v.tpot_p95_seconds, policy.targets.tpot_seconds),
        )
        if math.isfinite(measured) and math.isfinite(target)
    ]
    return max(ratios, default=math.nan)


def schedule_floor(windows: Sequence[ScheduleWindow]) -> int:
    """Return the highest floor among active windows; 0 without one."""
    return max([w.min_replicas or 0 for w in windows]) if windows else 0
