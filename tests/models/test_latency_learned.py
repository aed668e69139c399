"""The correction of the physics: found where it is real, refused where it is noise, never out of order."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_world import engine, telemetry
from simulated_service import simulated

from models import latency_learned
from models.capacity import TargetArrays, attainment, predicted_latency, replica_capacity_rps
from models.latency import LatencyModel, LatencyModelError
from models.latency_correction import KNOTS, LIMIT, LOADS, SHAPE, Table, Tables, ordered
from models.latency_drift import expected_tpot_p50
from models.slo import SloTargets
from models.step_time import mean_field, request_work

KEY = ("prod/chat", "h100")
NAME = "prod/chat/h100"
ASKED = ["service", "variant", "ready_replicas", "arrival_rate_rps", "isl_tokens", "osl_tokens"]
ONE = np.ones(1)
LONG = np.log(
    1.3
)  # decoding beside prompts above 1,500 tokens takes 30 % longer: caches swapped out


def swapping(windows: int, seed: int, noise: float = 0.05) -> pd.DataFrame:
    """Telemetry of an engine that does what no term of a step's time says."""
    frame = telemetry(engine(), windows, noise=noise, seed=seed)
    slower = np.exp(LONG * (frame.isl_tokens > 1500.0))
    return frame.assign(**{c: frame[c] * slower for c in frame if c.startswith("tpot")})


def without(model: LatencyModel) -> LatencyModel:
    """The same model, its physics alone."""
    return LatencyModel(model.keys, model.coefficients(model.keys).columns(), model.scores)


def error(model: LatencyModel, frame: pd.DataFrame) -> float:
    got = model.predict(frame[ASKED]).tpot_p50_seconds
    return float(np.mean(np.abs(np.log(got / frame.tpot_p50_seconds))))


@pytest.fixture(scope="module")
def corrected() -> LatencyModel:
    return LatencyModel.fit(swapping(600, seed=1))


def test_an_effect_that_is_real_is_found_and_helps_on_windows_never_seen(
    corrected: LatencyModel,
) -> None:
    judged = corrected.scores[NAME]["correction"]
    assert judged["tpot"]["taken"]
    assert judged["tpot"]["sure_gain_ratio"] > 0.01
    assert not judged["ttft"]["taken"]  # nothing is wrong with it
    later = swapping(400, seed=77)
    physics = error(without(corrected), later)
    assert physics > 0.08
    assert error(corrected, later) < 0.6 * physics


def test_capacity_follows_the_effect(corrected: LatencyModel) -> None:
    goals, target = TargetArrays.of([SloTargets(5.0, 0.09)]), np.array([0.95])
    isl, osl = 1700.0 * ONE, 120.0 * ONE
    slower = TargetArrays.of([SloTargets(5.0, 0.09 / 1.3)])
    true = replica_capacity_rps(engine(), isl, osl, slower, target, 4.0)[0]

    def learned(model: LatencyModel) -> float:
        c, more = model.coefficients([KEY]), model.correction([KEY], isl, osl)
        return float(replica_capacity_rps(c, isl, osl, goals, target, 4.0, correction=more)[0])

    assert abs(learned(corrected) / true - 1) < abs(learned(without(corrected)) / true - 1)
    assert learned(corrected) == pytest.approx(true, rel=0.12)


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1, 0.2])
def test_noise_alone_is_refused(noise: float) -> None:
    for seed in range(4):
        model = LatencyModel.fit(telemetry(engine(), 400, noise=noise, seed=seed))
        judged = model.scores[NAME]["correction"]
        assert [judged[metric]["taken"] for metric in ("ttft", "tpot")] == [False, False], seed
        assert model.correction([KEY], 1200.0 * ONE, 120.0 * ONE) is None


def test_noise_that_lasts_for_hours_is_refused() -> None:
    # every stretch of a hundred windows is a fifth slower or faster, whatever its load and lengths
    frame = telemetry(engine(), 600, noise=0.03, seed=5)
    luck = np.random.default_rng(8).normal(0.0, 0.2, 6)[np.arange(600) // 100]
    moody = frame.assign(**{c: frame[c] * np.exp(luck) for c in frame if "_p" in c})
    judged = LatencyModel.fit(moody).scores[NAME]["correction"]
    assert not judged["ttft"]["taken"]
    assert not judged["tpot"]["taken"]


def test_an_engine_that_is_simulated_step_by_step_needs_none() -> None:
    judged = LatencyModel.fit(simulated(8.0)[0]).scores[NAME]["correction"]
    assert [j["taken"] for j in judged.values()] == [False, False]


def test_too_few_windows_are_not_even_tried() -> None:
    assert "correction" not in LatencyModel.fit(swapping(100, seed=1)).scores[NAME]


def test_what_would_harm_at_loads_never_seen_is_refused() -> None:
    # slower in the middle, not at the top: more load would have to be faster again
    frame = telemetry(engine(), 600, seed=2)
    load = frame.arrival_rate_rps * (1.3e-4 * frame.isl_tokens + 4e-4 * frame.osl_tokens)
    load /= frame.ready_replicas
    bump = np.exp(0.3 * ((load > 0.25) & (load < 0.5)))
    spoilt = frame.assign(**{c: frame[c] * bump for c in frame if c.startswith("tpot")})
    judged = LatencyModel.fit(spoilt).scores[NAME]["correction"]["tpot"]
    assert not judged["taken"]


def test_a_prefill_variant_has_no_correction_of_tpot() -> None:
    frame = swapping(400, seed=1)
    model = LatencyModel.fit(frame, roles={KEY: "Prefill"})
    assert set(model.scores[NAME]["correction"]) == {"ttft"}


def test_files_hold_the_correction_and_damaged_ones_are_refused(corrected: LatencyModel) -> None:
    files = corrected.to_files()
    again = LatencyModel.from_files(files)
    assert again.to_files() == files
    asked = swapping(30, seed=3)[ASKED]
    pd.testing.assert_frame_equal(again.predict(asked), corrected.predict(asked))
    document = json.loads(files["latency.json"])
    document["corrections"][0]["values"][0] = 9.0
    with pytest.raises(
        LatencyModelError, match=r"prod/chat/h100: correction: values .* Train again"
    ):
        LatencyModel.from_files({"latency.json": json.dumps(document).encode()})
    del document["corrections"]  # as files were before there were corrections: the physics alone
    plain = LatencyModel.from_files({"latency.json": json.dumps(document).encode()})
    assert plain.correction([KEY], 1200.0 * ONE, 120.0 * ONE) is None


def test_a_leap_that_is_refused_keeps_the_correction_with_its_fit(corrected: LatencyModel) -> None:
    leap = LatencyModel([KEY], corrected.coefficients([KEY]).columns(), {})
    times = replace(leap.coefficients([KEY]), base_seconds=10.0 * ONE)  # 300 times slower
    kept = LatencyModel([KEY], times.columns(), {}).after(corrected)
    assert "leap" in kept.scores[NAME]
    assert kept.to_files()["latency.json"].count(b"log_isl") == 1


def test_the_drift_does_not_count_what_the_correction_knows(corrected: LatencyModel) -> None:
    c = corrected.coefficients([KEY])
    isl, osl, rate = 1700.0 * ONE, 120.0 * ONE, 1.2 * ONE
    work = request_work(c, isl, osl)
    batch = mean_field(c, work, rate, ONE)
    args = (c, work, rate, batch.running, ONE)
    known = corrected.correction([KEY], isl, osl)
    times = expected_tpot_p50(*args, known)[0] / expected_tpot_p50(*args)[0]
    assert 1.05 < times < 1.4


def test_a_line_by_hand() -> None:
    # knots every 1/16: at a load of 3/32 half way between the second (0.1) and the third (0.2)
    values = np.zeros(SHAPE)
    values[:, :, :, 1], values[:, :, :, 2:] = 0.1, 0.2
    mix = np.log([100.0, 1000.0, 10_000.0])
    line = Tables({KEY: Table(mix, mix, values)}).of([KEY], 1000.0 * ONE, 1000.0 * ONE)
    assert line is not None
    c = engine()
    args = (c, ONE, 1000.0 * ONE, 1000.0 * ONE)
    top = 1.0 / request_work(c, args[2], args[3]).saturation_seconds
    plain = predicted_latency(c, top * 3 / 32, *args[1:])
    more = predicted_latency(c, top * 3 / 32, *args[1:], correction=line)
    for name, seconds in more.items():
        assert seconds[0] / plain[name][0] == pytest.approx(np.exp(0.15)), name
    # half way from the first length to the second, in logarithms, a value that rises from 0 to 0.2
    values = np.zeros(SHAPE)
    values[:, 1:] = 0.2
    table = Tables({KEY: Table(mix, mix, values)})
    between = table.of([KEY], np.sqrt(1e5) * ONE, 1000.0 * ONE)
    assert between is not None
    assert between.ttft[0, 5] == pytest.approx(0.1)


def test_it_fades_outside_of_what_was_seen() -> None:
    mix = np.log([500.0, 1000.0, 2000.0])

    def at(g: float, isl: float, osl: float, load: float) -> float:
        values = ordered(np.full(SHAPE, g), (0.4, 0.6))
        line = Tables({KEY: Table(mix, mix, values)}).of([KEY], isl * ONE, osl * ONE)
        return 0.0 if line is None else float(np.interp(load, LOADS, line.tpot[0]))

    for g in (0.2, -0.2):
        assert at(g, 1000.0, 1000.0, 0.5) == pytest.approx(g)
        assert at(g, 1000.0, 4001.0, 0.5) == 0.0  # outputs twice as long as any
        assert at(g, 1000.0, 2000.0 * np.sqrt(2), 0.5) == pytest.approx(g / 2)
    # what makes faster is not believed at higher loads and longer prompts, what makes slower is
    assert at(-0.2, 1000.0, 1000.0, 0.95) == 0.0
    assert at(-0.2, 4001.0, 1000.0, 0.5) == 0.0
    assert at(0.2, 1000.0, 1000.0, 0.95) == pytest.approx(0.2)
    assert at(0.2, 1000.0, 1000.0, 0.1) == 0.0
    assert at(0.2, 249.0, 1000.0, 0.5) == 0.0
    assert at(5.0, 1000.0, 1000.0, 0.5) == pytest.approx(LIMIT, abs=1e-3)


def test_a_pair_without_one_and_a_length_that_is_missing_get_the_physics(
    corrected: LatencyModel,
) -> None:
    both = corrected.correction(
        [KEY, ("prod/x", "h100"), KEY], np.array([1700, 1700, np.nan]), 120 * np.ones(3)
    )
    assert both is not None
    assert np.abs(both.tpot[0]).max() > 0.05
    assert not both.tpot[1:].any()
    assert corrected.correction([("prod/x", "h100")], ONE, ONE) is None


cases = st.fixed_dictionaries(
    {
        "values": st.lists(st.floats(-2.0, 2.0), min_size=90, max_size=90),
        "low": st.floats(0.0, 0.5),
        "high": st.floats(0.5, 1.0),
        "rate": st.floats(0.01, 60.0),
        "more": st.floats(1.0, 2.0),
        "replicas": st.integers(1, 20),
        "isl": st.floats(50.0, 8000.0),
        "longer": st.floats(1.0, 3.0),
        "osl": st.floats(8.0, 2000.0),
    }
)


@settings(max_examples=200, deadline=None)
@given(cases)
def test_more_load_is_never_faster_whatever_was_learned(case: dict[str, Any]) -> None:
    rough = np.repeat(np.array(case["values"]).reshape(2, 3, 3, 5), 4, axis=3)[..., :KNOTS]
    mix = np.log([300.0, 1000.0, 3000.0])
    table = Table(mix, mix, ordered(rough, (case["low"], case["high"])))
    table.check()
    c, isl = engine(), case["isl"]
    lengths = np.array([isl, isl, isl, isl * case["longer"]]), np.full(4, case["osl"])
    line = Tables({KEY: table}).of([KEY] * 4, *lengths)
    assert line is not None
    rates = np.array([1.0, case["more"], 1.0, 1.0]) * case["rate"]
    counts = np.array([0.0, 0.0, 1.0, 0.0]) + case["replicas"]
    goals = TargetArrays.of([SloTargets(2.0, 0.08)])
    got = attainment(c, rates, counts, *lengths, goals, correction=line)
    assert got[1] <= got[0] + 1e-6  # more load
    assert got[2] >= got[0] - 1e-6  # more replicas
    said = predicted_latency(c, rates, counts, *lengths, correction=line)
    for name, seconds in said.items():
        assert seconds[1] >= seconds[0] * (1 - 1e-4), name
    targets = TargetArrays(
        np.array([2.0, 1.5, 2.0, 2.0]), np.array([0.08, 0.08, 0.06, 0.08]), np.full(4, np.inf)
    )
    most = replica_capacity_rps(c, *lengths, targets, np.full(4, 0.9), 2.0, correction=line)
    assert (most[1:] <= most[0] * (1 + 1e-6) + 1e-9).all()  # tighter targets, longer prompts


def test_loads_that_are_all_alike_have_none_higher() -> None:
    rng = np.random.default_rng(2)
    count = 240
    lengths = np.log(1000.0) + 0.2 * rng.standard_normal(count)
    off = 0.2 + 0.02 * rng.standard_normal(count)  # a sure gain at the one load that there is
    rows = latency_learned.Residuals(np.ones(count), lengths, lengths - 2.0, off)
    knots = np.quantile(lengths, [0.1, 0.5, 0.9])
    table, told = latency_learned._judged(rows, latency_learned._Mix(knots, knots - 2.0))
    assert table is not None
    assert told["gain_at_higher_loads_ratio"] is None
