"""Telemetry as it should not be: gaps, restarts, saturation, clocks, lengths. Each has one clear answer."""

import numpy as np
import pandas as pd
import pytest
from latency_world import engine, telemetry

from models.capacity import QUANTILE_NAMES, TargetArrays, predicted_latency, replica_capacity_rps
from models.frames import validate_serving
from models.latency import LatencyModel
from models.slo import SloTargets

KEY = ("prod/chat", "h100")
ASKED = ["service", "variant", "ready_replicas", "arrival_rate_rps", "isl_tokens", "osl_tokens"]
OUT = [f"{name}_seconds" for name in QUANTILE_NAMES]
CHAT = (np.array([1200.0]), np.array([120.0]))
GOALS = TargetArrays.of([SloTargets(1.5, 0.06)])


def capacity(model: LatencyModel) -> float:
    c = model.coefficients([KEY])
    return float(replica_capacity_rps(c, *CHAT, GOALS, np.array([0.95]), 4.0)[0])


TRUE = float(replica_capacity_rps(engine(), *CHAT, GOALS, np.array([0.95]), 4.0)[0])


def tpot_error(model: LatencyModel, frame: pd.DataFrame) -> float:
    got = model.predict(frame[ASKED]).tpot_p50_seconds
    return float(np.median(np.abs(got / frame.tpot_p50_seconds - 1)))


def test_no_traffic_leaves_the_pair_out_and_says_so() -> None:
    frame = telemetry(engine(), 40).assign(arrival_rate_rps=0.0)
    model = LatencyModel.fit(frame)
    assert model.keys == ()
    assert model.scores["prod/chat/h100"]["notes"] == "no window shows load, replicas and latency"


def test_one_window_is_believed_where_it_was_and_sized_with_caution() -> None:
    frame = telemetry(engine(), 300)
    one = frame.iloc[[17]].reset_index(drop=True)
    model = LatencyModel.fit(one)
    assert tpot_error(model, one) < 0.1
    assert 0.3 * TRUE < capacity(model) < 1.3 * TRUE
    c = model.coefficients([KEY])
    assert c.seen_isl_tokens[0] == one.isl_tokens[0]


def test_saturated_windows_alone_tell_of_steps_and_of_the_limit() -> None:
    # sixteen sequences fit; the queue grows from window to window
    c = engine(max_sequences=16.0)
    frame = telemetry(c, 40).assign(ready_replicas=1.0, isl_tokens=1200.0, osl_tokens=120.0)
    got = predicted_latency(c, np.array([1e3]), np.ones(1), *CHAT)
    full = {f"tpot_{p}_seconds": got[f"tpot_{p}"][0] for p in ("p50", "p95", "p99")}
    waits = {f"ttft_{p}_seconds": 10.0 + np.arange(40) for p in ("p50", "p95", "p99")}
    most = {"arrival_rate_rps": 6.0, "running": 15.9, "waiting": 30.0 + 10 * np.arange(40)}
    model = LatencyModel.fit(validate_serving(frame.assign(**full, **waits, **most), "full"))
    scores = model.scores["prod/chat/h100"]
    assert scores["steady_windows"] == 0
    assert model.coefficients([KEY]).max_sequences[0] == pytest.approx(15.9, rel=0.01)
    asked = frame.assign(arrival_rate_rps=6.0)[ASKED]
    assert model.predict(asked).tpot_p50_seconds[0] == pytest.approx(
        full["tpot_p50_seconds"], rel=0.1
    )
    assert 0.0 <= capacity(model) < 6.0


def test_a_backlog_older_than_its_load_does_not_blur_the_fit() -> None:
    clean = telemetry(engine(), 200)
    late = np.arange(200) % 10 >= 8  # a fifth of the windows drain an earlier overload
    slow = {c: np.where(late, 20.0, clean[c]) for c in OUT if c.startswith("ttft")}
    got = predicted_latency(
        engine(),
        clean.arrival_rate_rps.to_numpy(),
        clean.ready_replicas.to_numpy(),
        clean.isl_tokens.to_numpy(),
        clean.osl_tokens.to_numpy(),
    )
    running = clean.arrival_rate_rps * clean.osl_tokens * got["tpot_p50"]
    waiting = np.where(late, 5.0 * clean.ready_replicas + running, 0.0)
    spoilt = clean.assign(**slow, running=running, waiting=waiting)
    model = LatencyModel.fit(spoilt)
    assert model.scores["prod/chat/h100"]["steady_windows"] == 160
    steady = clean[~late]
    seen = model.predict(steady[ASKED]).ttft_p95_seconds
    assert np.median(np.abs(seen / steady.ttft_p95_seconds - 1)) < 0.1
    assert capacity(model) == pytest.approx(TRUE, rel=0.15)


def test_an_engine_that_became_slower_is_known_as_it_is_now() -> None:
    slower = 1.4
    times = {
        n: slower * getattr(engine(), n)[0]
        for n in (
            "base_seconds",
            "per_sequence_seconds",
            "per_context_token_seconds",
            "per_prompt_token_seconds",
        )
    }
    now = telemetry(engine(**times), 120, seed=9)
    now["ts"] += pd.Timedelta(hours=3)
    both = pd.concat([telemetry(engine(), 280), now], ignore_index=True)
    model = LatencyModel.fit(both)
    pace = model.scores["prod/chat/h100"]["pace"]
    assert pace["steps_now"] == pytest.approx(slower, rel=0.06)
    assert pace["windows_before"] == pytest.approx(280, abs=8)
    assert tpot_error(model, now) < 0.08
    steady = LatencyModel.fit(telemetry(engine(), 400))
    assert "pace" not in steady.scores["prod/chat/h100"]


def test_gaps_and_mixed_counts_of_replicas_change_little() -> None:
    frame = telemetry(engine(), 400)
    rng = np.random.default_rng(5)
    for column in OUT:
        frame.loc[rng.random(400) < 0.3, column] = np.nan
    frame = frame[(np.arange(400) // 40) % 3 != 1].reset_index(drop=True)
    assert capacity(LatencyModel.fit(frame)) == pytest.approx(TRUE, rel=0.15)


def test_percentiles_beyond_the_last_bucket_are_no_measurements() -> None:
    frame = telemetry(engine(), 400)
    heavy = frame.arrival_rate_rps * frame.isl_tokens / frame.ready_replicas
    spoilt = heavy > heavy.quantile(0.8)
    # the last finite bound is 12 s; the true percentiles are below a second
    cut = {c: np.where(spoilt, 12.0, frame[c]) for c in ("ttft_p95_seconds", "ttft_p99_seconds")}
    model = LatencyModel.fit(frame.assign(**cut))
    assert capacity(model) == pytest.approx(TRUE, rel=0.15)
    calm = frame[~spoilt]
    seen = model.predict(calm[ASKED]).ttft_p95_seconds
    assert np.median(np.abs(seen / calm.ttft_p95_seconds - 1)) < 0.1


def test_rows_out_of_order_and_times_that_repeat_are_sorted() -> None:
    frame = telemetry(engine(), 200)
    mixed = frame.sample(frac=1.0, random_state=3)
    assert LatencyModel.fit(mixed).to_files() == LatencyModel.fit(frame).to_files()
    twice = frame.assign(ts=frame.ts.dt.floor("2min"))
    assert capacity(LatencyModel.fit(twice)) == pytest.approx(TRUE, rel=0.15)


def test_a_gateway_whose_clock_is_a_window_late() -> None:
    # arrivals are those of the window before; the load wanders, as loads do
    frame = telemetry(engine(), 400, noise=0.02)
    order = np.argsort(np.sin(np.arange(400) / 9.0) + 0.001 * np.arange(400), kind="stable")
    rank = np.empty(400, dtype=int)
    rank[order] = np.arange(400)
    level = np.sort((frame.arrival_rate_rps / frame.ready_replicas).to_numpy())[rank]
    got = predicted_latency(engine(), 4.0 * level, np.full(400, 4.0), *CHAT)
    wander = frame.assign(
        ready_replicas=4.0,
        isl_tokens=1200.0,
        osl_tokens=120.0,
        arrival_rate_rps=np.roll(4.0 * level, 1),
        **{f"{n}_seconds": v for n, v in got.items()},
    )
    model = LatencyModel.fit(wander)
    assert tpot_error(model, wander) < 0.15
    assert capacity(model) == pytest.approx(TRUE, rel=0.25)


def test_outputs_of_no_token_are_left_out_and_predicted_as_one_token() -> None:
    frame = telemetry(engine(), 100)
    frame.loc[::2, "osl_tokens"] = 0.0
    model = LatencyModel.fit(frame)
    assert model.scores["prod/chat/h100"]["windows"] == 50
    asked = frame[ASKED].iloc[:4].assign(osl_tokens=[0.0, 1.0, 0.0, 1.0], isl_tokens=500.0)
    asked["arrival_rate_rps"], asked["ready_replicas"] = 1.0, 1.0
    got = model.predict(asked)[OUT].to_numpy()
    assert got[1] == pytest.approx(got[3])
    assert np.isfinite(got).all()


def test_lengths_beyond_the_memory_are_served_one_at_a_time_and_extrapolated_with_care() -> None:
    c = engine(kv_tokens=8_000.0, seen_isl_tokens=2000.0)
    args = (TargetArrays.of([SloTargets(60.0, 0.5)]), np.array([0.9]))
    lengths = np.array([1000.0, 4000.0, 8000.0, 32_000.0])
    rates = [
        replica_capacity_rps(c, np.array([isl]), np.array([100.0]), *args)[0] for isl in lengths
    ]
    assert (np.diff(rates) < 0).all()
    # 32,000 tokens never fit beside another: d = 2.5e-4 + 1e-7 * 32,050 = 3.455e-3,
    # saturation at 1 / (100 d + 3.2 + 100 steps * 0.03) = 1 / 6.5455 = 0.1528
    assert 0.0 < rates[-1] < 0.1528
    got = predicted_latency(c, np.ones(1), np.ones(1), np.array([1e6]), np.array([100.0]))
    assert all(np.isfinite(v).all() for v in got.values())


def test_capacity_of_outputs_of_no_token_is_that_of_one_token() -> None:
    args = (GOALS, np.array([0.95]), 4.0)
    none, one = (
        replica_capacity_rps(engine(), np.array([500.0]), np.array([osl]), *args)[0]
        for osl in (0.0, 1.0)
    )
    assert none == one > 0.0


def test_odd_windows_teach_no_correction() -> None:
    """Nothing steady, or next to nothing, is nothing to judge a correction by: none is tried."""
    full = telemetry(engine(), 200).assign(running=40.0, waiting=500.0)
    for frame in (full, full.iloc[:1].reset_index(drop=True), telemetry(engine(), 5)):
        model = LatencyModel.fit(frame)
        assert "correction" not in model.scores["prod/chat/h100"]
        assert model.correction([KEY], *CHAT) is None


def test_a_jump_of_the_clock_between_windows_is_no_change_of_pace() -> None:
    # a day is missing in the middle, then the clock is set back by an hour: rows overlap
    frame = telemetry(engine(), 300)
    frame.loc[100:, "ts"] += pd.Timedelta(days=1)
    frame.loc[200:, "ts"] -= pd.Timedelta(hours=1)
    model = LatencyModel.fit(frame)
    assert "pace" not in model.scores["prod/chat/h100"]
    assert capacity(model) == pytest.approx(TRUE, rel=0.15)
