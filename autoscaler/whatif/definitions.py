"""What each number of the report means, in words."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "GPU-hours",
        "Accelerators of every replica from the moment it is asked for until it is gone: starting "
        "and draining ones are paid for too. Over all the hours driven, warm-up included.",
    ),
    ("Cost", "GPU-hours times the price of each accelerator class."),
    ("× clairvoyant", "GPU-hours over those of the clairvoyant plan."),
    (
        "SLO attainment",
        "Share of the requests that arrived after the warm-up and met every objective of their SLO. "
        "A request that was never served missed it. Rounded down.",
    ),
    (
        "TTFT",
        "Time to first token: from arrival to the first token, all waiting included, also for a "
        "replica that was still starting.",
    ),
    (
        "TPOT",
        "Time per output token of one request: last token minus first token, over output tokens "
        "minus one. Requests with fewer than 8 output tokens are judged on TTFT alone.",
    ),
    ("p95", "95 of 100 requests were at least this fast."),
    (
        "Scale-ups, scale-downs",
        "Times that the number of replicas asked for was raised, and lowered.",
    ),
    (
        "Forecast band",
        "From the 10 % to the 95 % quantile of the mean rate one lead time ahead. A lead time is "
        "what a start rarely exceeds, plus one control interval.",
    ),
    (
        "Saved",
        "One less our cost over the other's, over all drawn worlds. A month has 730 hours at the pace of "
        "those judged.",
    ),
    (
        "95 % interval",
        "Worlds and blocks of hours (a day where there are seven, else three hours) are drawn again "
        "2,000 times, the same for both sides; the interval holds 95 of 100 of the results. Where it "
        "holds zero the difference is noise: another week could turn it round.",
    ),
    (
        "World",
        "Requests drawn around the same rates, engines around the same profile, start-up times from the "
        "same distribution, with another seed. Settings are those found in the first.",
    ),
    ("Missed requests", "One less the SLO attainment; drawn as 0.001 % where it is less."),
    (
        "Need",
        "The replicas of the clairvoyant plan, and the forecast's band over what one replica carries "
        "within the SLO, rounded up.",
    ),
    (
        "Forecast, guard, limits, lead time",
        "Which step of a decision had the last word in a tick books what that tick cost more than the "
        "clairvoyant plan; what starting replicas cost more is the lead time's.",
    ),
    ("Most replicas", "Ready and starting at one time."),
)
