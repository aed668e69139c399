"""The sums behind load.parquet and serving.parquet (models/trace_load.py, trace_latency.py)."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.trace_columns import Reading, Rows, canonical
from models.trace_latency import (
    QUANTILES,
    RELATIVE_ERROR,
    LatencyCounter,
    bucket_of,
    bucket_seconds,
)
from models.trace_load import LoadCounter, SparseSums
from models.trace_shapes import TraceError, find_layout


def add(counter: LoadCounter, file: int, services: list[str], seconds: list[float]) -> None:
    code = counter.services.of(np.array(services, dtype=object), "x")
    amounts = np.column_stack(
        (np.ones(len(code)), np.full(len(code), 10.0), np.full(len(code), 2.0))
    )
    counter.add(file, code, np.array(seconds), amounts, None)


def table(frame: pd.DataFrame, service: str) -> dict[int, float]:
    mine = frame[frame.service == service]
    return {int(ts.timestamp()): n for ts, n in zip(mine.ts, mine.requests, strict=True)}


def test_steps_inside_the_span_are_zero_and_outside_absent() -> None:
    counter = LoadCounter(60.0)
    add(counter, 0, ["a", "a", "b", "a"], [250.0, 65.0, 130.0, 66.0])  # unordered
    frame = counter.frame("x")
    # the file covers steps 60 to 240; both services occur in it
    assert table(frame, "a") == {60: 2, 120: 0, 180: 0, 240: 1}
    assert table(frame, "b") == {60: 0, 120: 1, 180: 0, 240: 0}
    assert frame.input_tokens.sum() == 40
    assert frame.output_tokens.sum() == 8


def test_between_two_files_nothing_is_known() -> None:
    counter = LoadCounter(60.0)
    add(counter, 0, ["a", "b"], [0.0, 60.0])
    add(counter, 1, ["a", "a"], [300.0, 420.0])  # 120 to 299 is in no file; b is not in this one
    assert table(counter.frame("x"), "a") == {0: 1, 60: 0, 300: 1, 360: 0, 420: 1}
    assert table(counter.frame("x"), "b") == {0: 0, 60: 1}


def test_whole_steps_leave_out_the_ends() -> None:
    counter = LoadCounter(60.0, whole_steps=True)
    add(counter, 0, ["a"] * 4, [59.0, 70.0, 130.0, 185.0])
    assert table(counter.frame("x"), "a") == {60: 1, 120: 1}
    short = LoadCounter(60.0, whole_steps=True)
    add(short, 0, ["a", "a"], [59.0, 70.0])
    with pytest.raises(TraceError, match="no whole step"):
        short.frame("x")


def test_windows_are_known_only_where_the_log_has_them() -> None:
    counter = LoadCounter(600.0)
    code = np.zeros(7, dtype=np.int64)
    counter.services.of(np.array(["a"], dtype=object), "x")
    seconds = np.array([0, 600, 1200, 1800, 2400, 3600, 4200.0])  # 3000 is missing
    gap = np.array([False] * 6 + [True])  # and 4200 is a gap
    counter.add(0, code, seconds, np.full((7, 3), 5.0), gap)
    assert table(counter.windows(600.0), "a") == dict.fromkeys([0, 600, 1200, 1800, 2400, 3600], 5)
    # of 20 minutes: 0 and 1200 are whole, 2400 lacks 3000, 3600 lacks 4200
    assert table(counter.windows(1200.0), "a") == {0: 10, 1200: 10}


def test_a_span_of_decades_is_refused() -> None:
    counter = LoadCounter(1.0)
    add(counter, 0, ["a", "a"], [0.0, 1.7e9])
    with pytest.raises(
        TraceError, match="1970-01-01T00:00Z to 2023-11-14T22:13Z are 1700000001 rows"
    ):
        counter.frame("x")


def test_too_many_services_are_refused() -> None:
    counter = LoadCounter(60.0)
    with pytest.raises(TraceError, match="more than 20000 services, the last 'n20000'"):
        counter.services.of(np.array([f"n{i}" for i in range(20_001)], dtype=object), "x")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 100)), max_size=60), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_sums_do_not_depend_on_how_the_rows_are_chunked(
    rows: list[tuple[int, int]], size: int
) -> None:
    whole, parts = SparseSums(1), SparseSums(1)
    keys = np.array([k for k, _ in rows], dtype=np.int64)
    values = np.array([[float(v)] for _, v in rows]).reshape(-1, 1)
    whole.add(keys, values)
    for at in range(0, len(rows), size):
        parts.add(keys[at : at + size], values[at : at + size])
        if at % 2:
            parts.total()
    for one, other in zip(whole.total(), parts.total(), strict=True):
        np.testing.assert_array_equal(one, other)
    expected = {k: sum(v for kk, v in rows if kk == k) for k, _ in rows}
    assert (
        dict(zip(whole.total()[0].tolist(), whole.total()[1][:, 0].tolist(), strict=True))
        == expected
    )


@given(st.floats(1e-6, 86_400.0))
def test_a_bucket_stands_for_its_values_within_the_error(seconds: float) -> None:
    told = bucket_seconds(bucket_of(np.array([seconds])))[0]
    assert abs(told - seconds) <= RELATIVE_ERROR * seconds * (1 + 1e-9)


def rows_of(frame: pd.DataFrame) -> Rows:
    return canonical(frame, find_layout(list(frame), "x"), Reading(), "x")


def serving(frame: pd.DataFrame, step: float = 60.0) -> pd.DataFrame:
    rows = rows_of(frame)
    load = LoadCounter(step)
    code = load.services.of(rows.service, "x")
    amounts = np.column_stack((rows.requests, rows.input_tokens, rows.output_tokens))
    load.add(0, code, rows.seconds, amounts, None)
    counter = LatencyCounter(load)
    counter.add(rows, "x")
    return counter.frame()


def log(**columns: list[object]) -> pd.DataFrame:
    base: dict[str, list[object]] = {
        "timestamp": [10.0, 59.0, 130.0],
        "service": ["a/a"] * 3,
        "variant": ["h100"] * 3,
        "input_tokens": [100, 200, 300],
        "output_tokens": [11, 5, 21],
    }
    return pd.DataFrame({**base, **columns})


def test_each_number_falls_into_the_step_it_belongs_to() -> None:
    got = serving(log(ttft_seconds=[1.0, 2.0, 4.0], e2e_seconds=[2.0, 3.0, 8.0]))
    assert (got.ts.astype("int64") // 10**9).tolist() == [0, 60, 120]
    np.testing.assert_allclose(got.arrival_rate_rps, [2 / 60, 0, 1 / 60])
    np.testing.assert_allclose(got.isl_tokens, [150, np.nan, 300])
    np.testing.assert_allclose(got.osl_tokens, [8, np.nan, 21])
    # first tokens at 11, 61 and 134 s; ends at 12, 62 and 138 s
    np.testing.assert_allclose(got.ttft_p50_seconds, [1.0, 2.0, 4.0], rtol=RELATIVE_ERROR)
    # (2 - 1) / 10; five tokens are too few to judge; (8 - 4) / 20
    np.testing.assert_allclose(got.tpot_p50_seconds, [0.1, np.nan, 0.2], rtol=RELATIVE_ERROR)
    assert got.finished_requests.tolist() == [1, 1, 1]
    for unknown in ("ready_replicas", "running", "waiting", "kv_cache_usage_ratio"):
        assert got[unknown].isna().all()


def test_what_one_request_does_not_tell_is_not_counted() -> None:
    got = serving(log(ttft_seconds=[1.0, None, 4.0], e2e_seconds=[2.0, None, 8.0]))
    assert got.finished_requests.isna().all()  # the second may have ended somewhere
    np.testing.assert_allclose(got.ttft_p50_seconds, [1.0, np.nan, 4.0], rtol=RELATIVE_ERROR)


def test_without_ttft_an_end_tells_no_tpot() -> None:
    got = serving(log(e2e_seconds=[2.0, 3.0, 8.0]))
    assert got.ttft_p50_seconds.isna().all()
    assert got.tpot_p50_seconds.isna().all()
    assert got.finished_requests.tolist() == [1, 1, 1]


def test_percentiles_agree_with_numpy_within_the_error() -> None:
    rng = np.random.default_rng(5)
    ttft = rng.lognormal(0.0, 1.0, 500)
    frame = pd.DataFrame(
        {
            "timestamp": 0.0,
            "service": "a/a",
            "variant": "v",
            "input_tokens": 1,
            "output_tokens": 1,
            "ttft_seconds": ttft,
        },
        index=range(500),
    )
    got = serving(frame, step=3600.0)
    for label, q in QUANTILES.items():
        assert got[f"ttft_{label}_seconds"][0] == pytest.approx(
            np.quantile(ttft, q), rel=RELATIVE_ERROR
        )
