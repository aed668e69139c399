"""The cluster's counts over telemetry's; unknown stays unknown; nobody plans with a guess."""

import math
from dataclasses import replace

from builders import NOW, SERVICE, observation, policies, policy, seen, silence, variant

from autoscaler.operate.collect import (
    Replicas,
    accelerators,
    limited,
    merged,
    only_seen,
    replicas_of,
)

H100, A100 = (SERVICE, "h100"), (SERVICE, "a100")


def test_what_is_asked_for_and_not_there_is_starting() -> None:
    assert replicas_of(5, 3, 0, 0) == Replicas(5, 3, 2, 0)
    assert replicas_of(5, 3, 4, 1) == Replicas(5, 3, 4, 1)
    assert replicas_of(2, 3, 0, 1) == Replicas(2, 3, 0, 1)  # being scaled down


def test_counts_are_the_clusters_and_load_is_telemetrys() -> None:
    told = observation(rate=2.0, h100=seen(9, running=4.0))
    out = merged(told, policies(policy()), {H100: Replicas(3, 2, 1, 0)}, {"h100": 8})
    own = out.services[SERVICE]
    assert own.arrival_rate_rps == 2.0
    assert own.variants["h100"].running == 4.0
    counts = own.variants["h100"]
    assert (counts.desired, counts.ready, counts.starting, counts.draining) == (3, 2, 1, 0)
    assert out.pools == {"h100": 8}


def test_silence_is_unknown_and_not_zero() -> None:
    out = merged(silence(), policies(policy()), {H100: Replicas(3, 3, 0, 0)}, {})
    assert math.isnan(out.services[SERVICE].arrival_rate_rps)
    assert out.services[SERVICE].variants["h100"].desired == 3
    assert out.now_seconds == NOW


def test_a_workload_that_cannot_be_read_is_absent() -> None:
    both = policy(variants=(variant("h100"), variant("a100")))
    told = observation(h100=seen(1), a100=seen(1))
    out = merged(told, policies(both), {H100: Replicas(1, 1, 0, 0)}, {})
    assert list(out.services[SERVICE].variants) == ["h100"]
    assert merged(told, policies(both), {}, {}).services == {}


def test_a_class_whose_number_is_unknown_has_what_it_uses_and_no_more() -> None:
    both = policy(variants=(variant("h100"), variant("a100", accelerators_per_replica=2)))
    counts = {H100: Replicas(3, 3, 0, 0), A100: Replicas(2, 1, 1, 0)}
    assert accelerators(policies(both), counts, {"h100": 7, "free": 3}, {"h100", "a100"}) == {
        "h100": 7,
        "a100": 4,  # two replicas of two
    }
    assert accelerators(policies(both), {}, {}, {"a100"}) == {"a100": 0}


def test_what_was_never_seen_gets_no_room() -> None:
    both = policy(variants=(variant("h100"), variant("a100")))
    out = only_seen(policies(both), {H100: Replicas(1, 1, 0, 0)}).services[SERVICE]
    assert [(v.min_replicas, v.max_replicas) for v in out.variants] == [(1, 40), (0, 0)]
    known = {H100: Replicas(1, 1, 0, 0), A100: Replicas(1, 1, 0, 0)}
    assert only_seen(policies(both), known) == policies(both)


def test_namespace_quotas_are_what_the_cluster_allows_now() -> None:
    declared = policies(policy())
    pool = replace(declared.pools[0], namespace_quotas={"prod": 9})
    declared = replace(declared, pools=(pool,))
    assert limited(declared, {}).pools[0].namespace_quotas == {"prod": 9}
    now = limited(declared, {"pool": {"prod": 4, "dev": 0}})
    assert now.pools[0].namespace_quotas == {"prod": 4, "dev": 0}
