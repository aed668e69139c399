import numpy as np
import pandas as pd
import pytest
from latency_world import engine, telemetry

from models.capacity import QUANTILE_NAMES, TargetArrays, replica_capacity_rps
from models.frames import validate_serving
from models.latency import LatencyModel, LatencyModelError
from models.latency_windows import limits_of, sample_level, usable_windows
from models.slo import SloTargets

ASKED = ["service", "variant", "ready_replicas", "arrival_rate_rps", "isl_tokens", "osl_tokens"]
KEY = ("prod/chat", "h100")
OUT = [f"{name}_seconds" for name in QUANTILE_NAMES]


@pytest.fixture(scope="module")
def fitted() -> LatencyModel:
    return LatencyModel.fit(telemetry(engine()))


def test_loads_never_seen_are_predicted() -> None:
    frame = telemetry(engine(), windows=500)
    per_replica = frame.arrival_rate_rps * frame.isl_tokens / frame.ready_replicas
    light = per_replica < per_replica.quantile(0.6)
    model = LatencyModel.fit(frame[light].reset_index(drop=True))
    heavy = frame[~light].reset_index(drop=True)
    got = model.predict(heavy[ASKED])
    for column, worst in (("tpot_p50_seconds", 0.08), ("ttft_p50_seconds", 0.12)):
        assert np.median(np.abs(got[column] / heavy[column] - 1)) < worst


def test_capacity_is_recovered(fitted: LatencyModel) -> None:
    targets = TargetArrays.of([SloTargets(1.5, 0.06)])
    args = (np.array([1200.0]), np.array([120.0]), targets, np.array([0.95]), 4.0)
    true = replica_capacity_rps(engine(), *args)[0]
    assert replica_capacity_rps(fitted.coefficients([KEY]), *args)[0] == pytest.approx(
        true, rel=0.12
    )


def test_scores_say_what_was_used(fitted: LatencyModel) -> None:
    scores = fitted.scores["prod/chat/h100"]
    assert scores["windows"] == 300
    assert scores["out_of_sample"]["tpot_p50_seconds"] < 0.1
    assert set(scores["in_sample"]) == set(OUT)


def test_prediction_has_a_row_per_row_and_no_nan(fitted: LatencyModel) -> None:
    asked = pd.DataFrame(
        {
            "service": ["prod/chat", "prod/chat", "prod/new", "x", "prod/chat"],
            "variant": ["h100", "h100", "h100", "l4", "h100"],
            "ready_replicas": [2.0, np.nan, 3.0, 0.0, 1.0],
            "arrival_rate_rps": [np.nan, 0.0, 5.0, 5.0, 1e6],
            "isl_tokens": [1000.0, np.nan, 0.0, 100.0, 1000.0],
            "osl_tokens": [100.0, np.nan, 0.0, 10.0, 1000.0],
            "note": list("abcde"),
        },
        index=[7, 3, 3, 1, 0],
    )
    got = fitted.predict(asked)
    assert got.note.tolist() == list("abcde")
    assert got[list(asked.columns)].equals(asked)
    assert np.isfinite(got[OUT].to_numpy()).all()
    assert (got[OUT].to_numpy() > 0).all()
    nothing = fitted.predict(asked.iloc[:0])
    assert list(nothing.columns) == list(got.columns)


def test_files_round_trip(fitted: LatencyModel) -> None:
    files = fitted.to_files()
    again = LatencyModel.from_files(files)
    assert again.to_files() == files
    asked = telemetry(engine(), windows=20)[ASKED]
    pd.testing.assert_frame_equal(again.predict(asked), fitted.predict(asked))
    with pytest.raises(LatencyModelError, match=r"'latency.json' is missing"):
        LatencyModel.from_files({})
    with pytest.raises(LatencyModelError, match=r"format 0 .* Train again"):
        LatencyModel.from_files({"latency.json": b'{"format": 0}'})


def test_the_same_data_gives_the_same_bytes(fitted: LatencyModel) -> None:
    assert LatencyModel.fit(telemetry(engine())).to_files() == fitted.to_files()


def test_an_unknown_pair_is_nan(fitted: LatencyModel) -> None:
    c = fitted.coefficients([KEY, ("prod/none", "h100")])
    assert fitted.knows(*KEY)
    assert not fitted.knows("prod/none", "h100")
    assert np.isfinite(c.columns()[:, 0]).all()
    assert np.isnan(c.columns()[:, 1]).all()


def test_a_sweep_without_tails_or_gauges_is_lived_with() -> None:
    frame = telemetry(engine(), windows=40)
    gone = [c for c in OUT if "p50" not in c]
    bare = validate_serving(frame.drop(columns=gone).dropna(axis=1, how="all"), "sweep")
    model = LatencyModel.fit(bare)
    got = model.predict(frame[ASKED])
    assert np.median(np.abs(got.tpot_p50_seconds / frame.tpot_p50_seconds - 1)) < 0.06


def test_constant_load_and_lengths_still_give_a_plausible_model() -> None:
    frame = telemetry(engine(), windows=1)
    frame = pd.concat([frame] * 40, ignore_index=True)
    frame["ts"] = frame.ts.min() + pd.to_timedelta(30 * np.arange(40), unit="s")
    model = LatencyModel.fit(frame)
    got = model.predict(frame[ASKED])
    assert got.tpot_p50_seconds[0] == pytest.approx(frame.tpot_p50_seconds[0], rel=0.05)
    double = frame[ASKED].assign(arrival_rate_rps=2 * frame.arrival_rate_rps)
    assert model.predict(double).tpot_p50_seconds[0] > got.tpot_p50_seconds[0]


def test_nothing_usable_is_said_and_left_out() -> None:
    frame = telemetry(engine(), windows=5).assign(arrival_rate_rps=np.nan)
    model = LatencyModel.fit(frame)
    assert model.keys == ()
    assert "no window" in model.scores["prod/chat/h100"]["notes"]
    asked = telemetry(engine(), windows=5)[ASKED]
    assert np.isfinite(model.predict(asked)[OUT].to_numpy()).all()
    assert LatencyModel.from_files(model.to_files()).keys == ()


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    both = pd.concat(
        [telemetry(engine(), 30), telemetry(engine(), 30, key="prod/b")], ignore_index=True
    )
    LatencyModel.fit(both, progress=lambda *what: told.append(what))
    assert told == [("latency models", 1, 2), ("latency models", 2, 2)]


def test_limits_are_read_from_full_batches() -> None:
    frame = telemetry(engine(), windows=60)
    full = np.arange(60) >= 40
    frame["ready_replicas"] = 2.0
    frame["waiting"] = np.where(full, 40.0, 0.0)
    frame["running"] = np.where(full, 31.9, 10.0)
    context = frame.isl_tokens + 0.5 * frame.osl_tokens
    frame["kv_cache_usage_ratio"] = frame.running * context / (2 * 200_000)
    limits = limits_of(usable_windows(frame))
    assert limits.max_sequences == pytest.approx(15.95)
    assert limits.kv_tokens == pytest.approx(200_000)


def test_a_backlog_with_a_varying_batch_is_no_limit_of_sequences() -> None:
    frame = telemetry(engine(), windows=60)
    frame["ready_replicas"], frame["waiting"] = 1.0, 50.0
    frame["running"] = np.linspace(10, 60, 60)
    assert limits_of(usable_windows(frame)).max_sequences == 1e7


def test_what_a_p99_of_twenty_requests_stands_for() -> None:
    # order statistic 19 * 0.99 + 1 = 19.81; (19.81 - 0.3) / 20.4 = 0.9564
    assert sample_level(np.array([20.0]))[0, 2] == pytest.approx(0.9564, abs=1e-4)
    assert sample_level(np.array([np.nan]))[0].tolist() == [0.5, 0.95, 0.99]


def test_a_decode_variant_pays_for_no_prompts() -> None:
    # telemetry of an engine whose prompts another variant computes: TPOT knows no prompts
    frame = telemetry(engine(per_prompt_token_seconds=1e-12), 300)
    frame = frame.assign(**{c: np.nan for c in OUT if c.startswith("ttft")})
    model = LatencyModel.fit(frame, roles={KEY: "Decode"})
    targets = TargetArrays.of([SloTargets(tpot_seconds=0.06)], "Decode")
    args = (np.array([8000.0]), np.array([120.0]), targets, np.array([0.95]), 4.0)
    true = replica_capacity_rps(engine(per_prompt_token_seconds=1e-12), *args)[0]
    assert replica_capacity_rps(model.coefficients([KEY]), *args)[0] == pytest.approx(true, rel=0.2)
