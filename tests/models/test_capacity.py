import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_world import engine

from models.capacity import (
    TargetArrays,
    attainment,
    predicted_latency,
    replica_capacity_rps,
    required_replicas,
)
from models.slo import SloTargets

CHAT = (np.array([1000.0]), np.array([100.0]))


def goals(ttft: float = 1.0, tpot: float = 0.06, **more: float) -> TargetArrays:
    return TargetArrays.of([SloTargets(ttft, tpot, **more)])


def share(rate: float, replicas: float, targets: TargetArrays, **changes: float) -> float:
    got = attainment(engine(**changes), np.array([rate]), np.array([replicas]), *CHAT, targets)
    return float(got[0])


cases = st.fixed_dictionaries(
    {
        "rate": st.floats(0.01, 100.0),
        "more": st.floats(1.0, 2.0),
        "replicas": st.integers(1, 40),
        "isl": st.floats(1.0, 16_000.0),
        "osl": st.floats(1.0, 4_000.0),
        "ttft": st.floats(0.05, 20.0),
        "tpot": st.one_of(st.just(float("inf")), st.floats(0.02, 0.5)),
        "slots": st.sampled_from([4.0, 32.0, 1e7]),
        "scatter": st.sampled_from([0.0, 0.3]),
    }
)


@settings(max_examples=300, deadline=None)
@given(cases)
def test_more_load_never_helps_and_more_replicas_never_hurt(case: dict[str, float]) -> None:
    rate, replicas = case["rate"], case["replicas"]
    got = attainment(
        engine(max_sequences=case["slots"], tpot_scatter_ratio=case["scatter"], burst_ratio=1.1),
        np.array([rate, rate * case["more"], rate]),
        np.array([replicas, replicas, replicas + 1.0]),
        np.array([case["isl"]]),
        np.array([case["osl"]]),
        goals(case["ttft"], case["tpot"]),
    )
    assert np.isfinite(got).all()
    assert got.min() >= 0
    assert got.max() <= 1
    assert got[1] <= got[0] + 1e-6
    assert got[2] >= got[0] - 1e-6


mixes = st.fixed_dictionaries(
    {
        "isl": st.floats(50.0, 16_000.0),
        "osl": st.floats(8.0, 2_000.0),
        "longer": st.floats(1.01, 4.0),
        "ttft": st.floats(0.2, 20.0),
        "tpot": st.floats(0.035, 0.5),
        "tighter": st.floats(0.3, 0.99),
        "seen_load": st.floats(0.05, 1.0),
        "seen_isl": st.floats(100.0, 8_000.0),
        "slots": st.sampled_from([8.0, 256.0, 1e7]),
        "regularity": st.sampled_from([0.0, 0.5, 0.95]),
    }
)


@settings(max_examples=150, deadline=None)
@given(mixes)
def test_capacity_falls_with_longer_prompts_and_tighter_targets(mix: dict[str, float]) -> None:
    c = engine(
        seen_load_ratio=mix["seen_load"],
        seen_isl_tokens=mix["seen_isl"],
        prompt_growth_per_token=1e-4,
        max_sequences=mix["slots"],
        kv_tokens=60_000.0,
        regularity_ratio=mix["regularity"],
    )
    isl = np.array([mix["isl"], mix["isl"] * mix["longer"], mix["isl"], mix["isl"]])
    shrink = np.array([1.0, 1.0, mix["tighter"], 1.0])
    targets = TargetArrays(
        mix["ttft"] * shrink,
        mix["tpot"] * np.array([1.0, 1.0, 1.0, mix["tighter"]]),
        np.full(4, np.inf),
    )
    rates = replica_capacity_rps(c, isl, np.full(4, mix["osl"]), targets, np.full(4, 0.95), 2.0)
    assert np.isfinite(rates).all()
    assert (rates[1:] <= rates[0] * (1 + 1e-6) + 1e-9).all()


@settings(max_examples=150, deadline=None)
@given(mixes, st.floats(0.01, 40.0), st.floats(1.0, 3.0), st.integers(1, 12))
def test_more_load_is_never_faster(
    mix: dict[str, float], rate: float, more: float, replicas: int
) -> None:
    c = engine(max_sequences=1e7, regularity_ratio=mix["regularity"], prompt_growth_per_token=1e-4)
    rates = np.array([rate, rate * more])
    lengths = (np.full(2, mix["isl"]), np.full(2, mix["osl"]))
    got = predicted_latency(c, rates, np.full(2, float(replicas)), *lengths)
    for name, seconds in got.items():
        assert seconds[1] >= seconds[0] * (1 - 1e-4), name


def test_beyond_saturation_nothing_is_attained() -> None:
    # saturation at 1 / 0.151613 = 6.596 requests/s (test_latency_physics)
    lenient = goals(1000.0, float("inf"))
    assert share(6.0, 1.0, lenient) > 0.9
    assert share(6.6, 1.0, lenient) == 0.0
    assert share(6.6, 2.0, lenient) > 0.99


def test_pooling_pays() -> None:
    c = engine()
    alone = replica_capacity_rps(c, *CHAT, goals(), np.array([0.99]))
    together = replica_capacity_rps(c, *CHAT, goals(), np.array([0.99]), replicas=8.0)
    assert together[0] > 1.1 * alone[0]  # queues pool; a long prompt beside an answer does not


def test_unseen_load_is_sized_to_the_safe_side_modestly() -> None:
    known = replica_capacity_rps(engine(), *CHAT, goals(), np.array([0.99]), 4.0)
    unseen = replica_capacity_rps(
        engine(seen_load_ratio=0.1), *CHAT, goals(), np.array([0.99]), 4.0
    )
    assert 0.85 * known[0] < unseen[0] < 0.97 * known[0]


def test_capacity_is_where_attainment_falls_below_the_target() -> None:
    c = engine()
    rate = replica_capacity_rps(c, *CHAT, goals(), np.array([0.95]), replicas=3.0)[0]
    assert share(3 * rate * 0.999, 3.0, goals()) >= 0.95
    assert share(3 * rate * 1.001, 3.0, goals()) < 0.95
    impossible = replica_capacity_rps(c, *CHAT, goals(ttft=0.01), np.array([0.95]))
    assert impossible[0] == 0.0


@pytest.mark.parametrize(
    "ascending", [True, False]
)  # ascending points are bounded by a few of them
def test_required_replicas_equal_a_plain_search(ascending: bool) -> None:
    rng = np.random.default_rng(2)
    n, k = 25, 11
    c = engine(n)
    rates = rng.uniform(0.1, 60, (n, 1)) * np.exp(0.3 * rng.normal(size=(n, k)))
    if ascending:
        rates.sort(axis=1)
    weights = rng.uniform(0.1, 1.0, (n, k))
    isl, osl = rng.uniform(200, 3000, n), rng.uniform(20, 400, n)
    targets = TargetArrays.of([SloTargets(1.5, 0.08)] * n)
    most = np.full(n, 12)
    got = required_replicas(c, rates, weights, isl, osl, targets, np.full(n, 0.97), most)
    for i in range(n):
        wanted = 13
        for count in range(1, 13):
            met = attainment(
                engine(), rates[i], np.array([count]), isl[[i]], osl[[i]], goals(1.5, 0.08)
            )
            requests = weights[i] * rates[i]
            if (requests * met).sum() / requests.sum() >= 0.97:
                wanted = count
                break
        assert got[i] == wanted
    assert len(set(got.tolist())) > 5
    for guess in (np.zeros(n, dtype=int), got, np.full(n, 99), rng.integers(-1, 14, n)):
        given = (c, rates, weights, isl, osl, targets, np.full(n, 0.97), most)
        assert (required_replicas(*given, guess=guess) == got).all()


def test_no_demand_no_model_and_too_much_demand() -> None:
    c = engine(4)
    c.base_seconds[1] = np.nan
    rates = np.array([[0.0, 0.0], [5.0, 5.0], [500.0, 500.0], [5.0, 0.0]])
    got = required_replicas(
        c,
        rates,
        np.ones((4, 2)),
        np.full(4, 1000.0),
        np.full(4, 100.0),
        TargetArrays.of([SloTargets(1.0, 0.06)] * 4),
        np.full(4, 0.99),
        np.full(4, 10),
    )
    assert got[:3].tolist() == [0, -1, 11]
    # a point without requests does not count: only the 5 requests/s matter
    assert 1 <= got[3] <= 3


def test_missing_input_is_nan_and_zero_replicas_serve_nothing() -> None:
    assert np.isnan(share(float("nan"), 1.0, goals()))
    assert share(1.0, 0.0, goals()) == 0.0
    assert share(0.0, 0.0, goals()) == 1.0


def test_roles_answer_for_their_phase_alone() -> None:
    c = engine()
    args = (np.array([4.0]), np.array([1.0]), *CHAT)
    both = attainment(c, *args, goals())[0]
    prefill = attainment(c, *args, TargetArrays.of([SloTargets(1.0, 1e-9)], "Prefill"))[0]
    decode = attainment(c, *args, TargetArrays.of([SloTargets(1e-9, 0.06)], "Decode"))[0]
    assert prefill > both
    assert decode > both
    with pytest.raises(ValueError, match="role 'Both ways'; allowed: Both, Prefill, Decode"):
        TargetArrays.of([SloTargets()], "Both ways")


def test_end_to_end_target_counts() -> None:
    # alone, 100 tokens take about 3 s: 30 s is easy, 1 s is not
    assert share(0.1, 1.0, goals(10.0, 1.0, e2e_seconds=30.0)) > 0.99
    assert share(0.1, 1.0, goals(10.0, 1.0, e2e_seconds=1.0)) < 0.2


def test_percentiles_are_ordered_and_rise_with_load() -> None:
    rate = np.linspace(0.1, 12.0, 40)
    got = predicted_latency(engine(), rate, np.array([1.0]), *CHAT)
    for metric in ("ttft", "tpot"):
        stacked = np.stack([got[f"{metric}_{p}"] for p in ("p50", "p95", "p99")])
        assert np.isfinite(stacked).all()
        assert (np.diff(stacked, axis=0) >= 0).all()
    assert (np.diff(got["ttft_p95"]) > 0).all()
