"""Shapes, times and checked columns of request logs (models/trace_*.py)."""

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from models.trace_columns import Reading, canonical
from models.trace_shapes import TraceError, find_layout, parse_mapping
from models.trace_times import epoch_seconds

UTC = ZoneInfo("UTC")
JANUARY_6 = 1_736_121_600.0  # 2025-01-06T00:00:00Z: 20,094 days of 86,400 s


@pytest.mark.parametrize(
    ("header", "shape", "rows"),
    [
        (["TIMESTAMP", "ContextTokens", "GeneratedTokens"], "azure", "request"),
        (
            ["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"],
            "burstgpt",
            "request",
        ),
        (["timestamp", "input_length", "output_length", "hash_ids"], "mooncake", "request"),
        (
            ["client", "t_s", "rate_rps", "mean_input_tokens", "mean_output_tokens"],
            "servegen",
            "rate",
        ),
        (["timestamp", "service", "input_tokens", "output_tokens"], "generic", "request"),
        (["ts", "prompt_tokens", "completion_tokens"], "generic", "request"),
        (["timestamp", "requests", "input_tokens", "output_tokens"], "generic", "totals"),
    ],
)
def test_each_shape_is_known_by_its_columns(header: list[str], shape: str, rows: str) -> None:
    layout = find_layout(header, "x.csv")
    assert (layout.shape, layout.rows) == (shape, rows)


def test_mooncakes_times_are_milliseconds() -> None:
    layout = find_layout(["timestamp", "input_length", "output_length"], "x")
    assert layout.columns["timestamp"].factor == 1e-3


def test_a_mapping_replaces_and_extends_a_shape() -> None:
    header = ["Timestamp", "Model", "Request tokens", "Response tokens", "Elapsed time"]
    mapping = parse_mapping("service=Model, e2e_seconds=Elapsed time")
    layout = find_layout(header, "x", mapping=mapping)
    assert layout.shape == "burstgpt"
    assert layout.columns["service"].name == "Model"
    assert layout.columns["e2e_seconds"].name == "Elapsed time"
    in_milliseconds = find_layout(
        ["timestamp", "at", "input_tokens", "output_tokens"], "x", mapping={"timestamp_ms": "at"}
    )
    assert in_milliseconds.columns["timestamp"].name == "at"
    assert in_milliseconds.columns["timestamp"].factor == 1e-3


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            ["timestamp", "input_tokens"],
            {},
            "x.csv: column output_tokens is missing .format generic",
        ),
        (["a"], {"shape": "azure"}, "TIMESTAMP, ContextTokens, GeneratedTokens is missing"),
        (["a"], {"shape": "splunk"}, "--format: 'splunk'; allowed: auto, azure"),
        (
            ["a"],
            {"mapping": {"timestamp": "b"}},
            "column 'b' of --columns is missing; there are: a",
        ),
        (["timestamp", "input_tokens", "input_tokens", "output_tokens"], {}, "occurs twice"),
    ],
)
def test_missing_columns_are_named(
    header: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        find_layout(header, "x.csv", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["timestamp", "time=a", "timestamp=", "timestamp=a,timestamp=b"])
def test_a_mapping_with_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(TraceError, match="--columns"):
        parse_mapping(text)


def seconds(values: list[object], zone: ZoneInfo | None = UTC, start: float = 0.0) -> list[float]:
    series = pd.Series(values)
    return epoch_seconds(series, "x", factor=1.0, start_seconds=start, zone=zone).tolist()


def test_times_with_and_without_a_zone() -> None:
    assert (
        seconds(["2025-01-06T00:00:01Z", "2025-01-06 02:00:01+02:00", "2025-01-05T19:00:01-05"])
        == [JANUARY_6 + 1] * 3
    )
    assert seconds(["2025-01-06 01:00:01.5"], ZoneInfo("Europe/Berlin")) == [JANUARY_6 + 1.5]
    assert seconds(["2025-01-06"]) == [JANUARY_6]  # its -06 is a day, not an offset


def test_times_without_a_zone_need_one() -> None:
    with pytest.raises(TraceError, match="x: 2025-01-06 00:00:00 has no time zone"):
        seconds(["2025-01-06T00:00:00Z", "2025-01-06 00:00:00"], None)
    with pytest.raises(TraceError, match="has no time zone"):
        seconds([pd.Timestamp("2025-01-06")], None)
    assert seconds(["2025-01-06T00:00:00Z"], None) == [JANUARY_6]


def test_local_times_that_occur_twice_or_never_are_bad() -> None:
    got = seconds(
        ["2025-10-26 02:30", "2025-03-30 02:30", "2025-10-26 03:30"], ZoneInfo("Europe/Berlin")
    )
    assert np.isnan(got[:2]).all()
    assert got[2] == pd.Timestamp("2025-10-26T02:30Z").timestamp()


def test_numbers_count_from_the_start() -> None:
    assert seconds([0, 1.5], None, start=JANUARY_6) == [JANUARY_6, JANUARY_6 + 1.5]
    assert seconds(["0", "2"], None, start=JANUARY_6) == [JANUARY_6, JANUARY_6 + 2]


def test_times_that_are_none_are_bad() -> None:
    # seconds in milliseconds lie beyond 2100; -1 before 1970
    bad = [1.7e12, -1.0, np.nan, np.inf]
    assert np.isnan(seconds(bad, None)).all()
    assert np.isnan(seconds(["", "yesterday", None, "2025-13-01T00:00:00Z"], None)).all()
    assert np.isnan(seconds([True, False], None)).all()


def generic(**columns: list[object]) -> pd.DataFrame:
    base: dict[str, list[object]] = {
        "timestamp": [0.0, 1.0, 2.0],
        "service": ["a/a", "a/a", "b/b"],
        "input_tokens": [1, 2, 3],
        "output_tokens": [10, 20, 30],
    }
    return pd.DataFrame({**base, **columns})


def test_good_rows_keep_their_order_and_bad_ones_are_told() -> None:
    frame = generic(output_tokens=["10", "many", "-3"], service=["a/a", "a/a", " b/b "])
    rows = canonical(frame, find_layout(list(frame), "x"), Reading(), "x")
    assert rows.seconds.tolist() == [0.0]
    assert rows.output_tokens.tolist() == [10.0]
    assert rows.bad_rows == 2
    assert rows.first_bad is not None
    assert (rows.first_bad.row, rows.first_bad.column, rows.first_bad.value) == (
        1,
        "output_tokens",
        "'many'",
    )
    assert rows.first_bad.allowed == "a number from 0 to 1e+08"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("input_tokens", [1, np.inf, 3]),
        ("input_tokens", [1, 1e9, 3]),
        ("input_tokens", [1, None, 3]),
        ("service", ["a", None, "b"]),
        ("service", ["a", "", "b"]),
        ("service", ["a", "x" * 513, "b"]),
        ("service", ["a", "x\ny", "b"]),
        ("ttft_seconds", [0.1, -0.1, None]),
        ("ttft_seconds", [0.1, 1e5, None]),
        ("ttft_ms", ["100", "fast", ""]),
        ("e2e_ms", [5, 9e7, 5]),
    ],
)
def test_one_bad_value_is_one_bad_row(column: str, values: list[object]) -> None:
    frame = generic(**{column: values})
    rows = canonical(frame, find_layout(list(frame), "x"), Reading(), "x")
    assert (rows.bad_rows, len(rows.seconds)) == (1, 2)
    assert rows.first_bad is not None
    assert (rows.first_bad.row, rows.first_bad.column) == (1, column)


def test_latencies_come_in_seconds_and_an_end_before_the_first_token_is_bad() -> None:
    frame = generic(ttft_ms=[100, 250, None], e2e_seconds=[1.0, 0.2, 3.0])
    rows = canonical(frame, find_layout(list(frame), "x"), Reading(), "x")
    assert rows.bad_rows == 1
    assert rows.ttft_seconds is not None
    assert rows.e2e_seconds is not None
    np.testing.assert_allclose(rows.ttft_seconds, [0.1, np.nan])
    assert rows.e2e_seconds.tolist() == [1.0, 3.0]


def test_windows_without_a_rate_are_gaps_not_zeros() -> None:
    frame = pd.DataFrame(
        {
            "t_s": [0, 600, 1200],
            "rate_rps": [1.0, np.nan, 2.0],
            "mean_input_tokens": [5.0, 5.0, 5.0],
            "mean_output_tokens": [5.0, 5.0, 5.0],
            "gap": [False, False, True],
        }
    )
    rows = canonical(frame, find_layout(list(frame), "x"), Reading(service="a/a"), "x")
    assert rows.gap is not None
    assert rows.gap.tolist() == [False, True, True]
    assert rows.bad_rows == 0
