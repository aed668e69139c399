"""Spot capacity in a plan: what a replica that is taken back now and then is worth; how much rests on it.

Worth: a replica is interrupted `rate` times an hour that it serves and is out of service for a lead time
after each: of a long while it serves 1 / (1 + rate * lead / 3600), the share of an alternating renewal
process that is up (Ross, Introduction to Probability Models, chapter 7). To first order that is
1 - rate * lead / 3600.

Risk: interruptions of spot come together, which a mean does not show. So capacity that stays must cover
1 - maxSpotRatio of the need (ServiceNeed.stay_floor); if all spot went at once, that much would go on.
"""

from autoscaler.core.assess import UNKNOWN_START
from autoscaler.core.needs import COVER_SLACK, ServiceNeed, VariantNeed
from autoscaler.core.outcome import Forecasts
from autoscaler.core.prices import Prices
from autoscaler.core.types import Policies

SECONDS_PER_HOUR = 3600.0


def worth_ratio(interruptions_per_hour: float, lead_seconds: float) -> float:
    """Return the share of the time that a replica serves."""
    return 1.0 / (1.0 + interruptions_per_hour * lead_seconds / SECONDS_PER_HOUR)


def worth_ratios(
    policies: Policies, forecasts: Forecasts, prices: Prices, interval_seconds: float
) -> dict[tuple[str, str], float]:
    """Return the worth by (service, variant) of those that are interrupted; absent: a whole replica.

    The lead is a typical start and the tick that orders it.
    """
    worth: dict[tuple[str, str], float] = {}
    for name, policy in policies.services.items():
        for v in policy.variants:
            _, _, rate = prices.of_replica(v)
            if rate > 0:
                start = forecasts.starts.get((name, v.name), UNKNOWN_START)
                worth[name, v.name] = worth_ratio(rate, start.typical_seconds + interval_seconds)
    return worth


def spot_in_words(need: ServiceNeed, replicas: tuple[int, ...]) -> str:
    """Return a sentence where the cap on spot decided a plan or could not be kept, else an empty text."""
    if need.max_spot_ratio >= 1:
        return ""
    wanted = 1.0 - need.max_spot_ratio
    shares = [n / v.future for n, v in zip(replicas, need.variants, strict=True)]
    for phase in need.phases():
        stays, spots = need.kinds(phase)
        stay, spot = sum(shares[i] for i in stays), sum(shares[i] for i in spots)
        if not stays or not spots:
            continue
        if stay < wanted - COVER_SLACK and spot > COVER_SLACK:
            resting = min(spot, 1.0 - stay)
            return (
                f"{resting:.0%} of the requirement rests on spot, more than maxSpotRatio "
                f"{need.max_spot_ratio:.0%}: no more of what stays can be had"
            )
        if any(_tight(need.variants[i], replicas[i], stay, wanted) for i in stays) and any(
            _cheaper(need, replicas, s, i) for s in spots for i in stays if replicas[i]
        ):
            return (
                f"spot would be cheaper, but no more than maxSpotRatio {need.max_spot_ratio:.0%} "
                "of the requirement rests on it"
            )
    return ""


def _tight(v: VariantNeed, n: int, stay: float, wanted: float) -> bool:
    """Whether one replica less of what stays would rest too much on spot."""
    return n > v.lower and stay - 1.0 / v.future < wanted - COVER_SLACK


def _cheaper(need: ServiceNeed, replicas: tuple[int, ...], s: int, i: int) -> bool:
    """Whether spot variant s has a replica left that covers for less than variant i."""
    spot, stay = need.variants[s], need.variants[i]
    start = spot.start_usd if replicas[s] >= spot.current else 0.0
    price = spot.usd_per_hour + spot.restart_usd_per_hour + start
    return replicas[s] < spot.upper and price * spot.future < stay.usd_per_hour * stay.future
