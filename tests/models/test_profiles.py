import numpy as np
import pandas as pd
import pytest
from latency_world import engine, telemetry

from models.capacity import TargetArrays, replica_capacity_rps
from models.latency import LatencyModel
from models.profiles import ProfileError, profile, profile_names
from models.slo import SloTargets
from models.step_time import Coefficients

NAME = "llama-3.1-70b-h100-fp8-tp4"
KEY = ("prod/chat", "h100")
ASKED = (
    np.array([1000.0]),
    np.array([200.0]),
    TargetArrays.of([SloTargets(1.0, 0.05)]),
    np.array([0.95]),
)


def like(name: str, slower: float) -> Coefficients:
    c = Coefficients.from_columns(profile(name).columns[:, None])
    times = {
        f: float(getattr(c, f)[0]) * slower
        for f in (
            "base_seconds",
            "per_sequence_seconds",
            "per_context_token_seconds",
            "per_prompt_token_seconds",
        )
    }
    return engine(**times, max_sequences=256.0, kv_tokens=float(c.kv_tokens[0]))


def test_every_profile_is_an_engine_that_can_serve() -> None:
    assert len(profile_names()) > 40
    for name in profile_names():
        known = profile(name)
        c = Coefficients.from_columns(known.columns[:, None])
        assert np.isfinite(known.columns).all(), name
        assert known.kind in ("measured", "modelled"), name
        assert known.tpot_error_ratio < 0.2, name
        lenient = TargetArrays.of([SloTargets(10.0, 0.2)])
        assert replica_capacity_rps(c, *ASKED[:2], lenient, ASKED[3])[0] > 0.1, name


def test_an_unknown_profile_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'h100'; allowed: gpt-oss-120b-b200"):
        profile("h100")
    with pytest.raises(ProfileError, match="no profile 'x'"):
        LatencyModel.fit(telemetry(engine(), 20), profiles={KEY: "x"})


def test_a_variant_without_history_is_sized_from_its_profile_at_the_safe_side() -> None:
    empty = LatencyModel.fit(telemetry(engine(), 20).iloc[:0])
    c = empty.coefficients([KEY, KEY, KEY], [NAME, None, "no such profile"])
    assert np.isnan(c.base_seconds).tolist() == [False, True, True]
    safe = Coefficients.from_columns(c.columns()[:, :1])
    plain = Coefficients.from_columns(profile(NAME).columns[:, None])
    # steps count as exp(0.5 * 0.25) = 1.13 times as long, and no load was seen at all
    assert safe.base_seconds[0] == pytest.approx(plain.base_seconds[0] * 1.1331, rel=1e-4)
    got, most = (replica_capacity_rps(x, *ASKED)[0] for x in (safe, plain))
    assert 0.6 * most < got < 0.95 * most


def test_a_known_pair_does_not_ask_its_profile() -> None:
    model = LatencyModel.fit(telemetry(engine(), 60))
    plain, asked = model.coefficients([KEY]), model.coefficients([KEY], [NAME])
    assert np.array_equal(plain.columns(), asked.columns())


def quiet_windows(c: Coefficients) -> pd.DataFrame:
    """Five windows of little load that show medians only."""
    frame = telemetry(c, 400)
    per_replica = frame.arrival_rate_rps / frame.ready_replicas
    few = frame[per_replica < per_replica.quantile(0.05)].iloc[:5].reset_index(drop=True)
    tails = [f"{metric}_{p}_seconds" for metric in ("ttft", "tpot") for p in ("p95", "p99")]
    return few.assign(**dict.fromkeys(tails, np.nan))


def test_a_profile_helps_where_history_is_thin() -> None:
    off = []
    for slower in (0.8, 0.9, 1.0, 1.15, 1.3):
        c = like(NAME, slower)
        true = replica_capacity_rps(c, *ASKED)[0]
        for profiles in ({}, {KEY: NAME}):
            model = LatencyModel.fit(quiet_windows(c), profiles=profiles)
            capacity = replica_capacity_rps(model.coefficients([KEY]), *ASKED)[0]
            off.append(abs(np.log(capacity / true)))
    without, with_profile = np.mean(off[::2]), np.mean(off[1::2])
    assert with_profile < 0.15
    assert with_profile < 0.75 * without


def test_a_wrong_profile_is_left_behind_as_data_arrive() -> None:
    c = like(NAME, 2.0)
    true = replica_capacity_rps(c, *ASKED)[0]
    model = LatencyModel.fit(telemetry(c, 300), profiles={KEY: NAME})
    assert replica_capacity_rps(model.coefficients([KEY]), *ASKED)[0] == pytest.approx(
        true, rel=0.15
    )
