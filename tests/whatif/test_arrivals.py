from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autoscaler.whatif.arrivals import read_arrivals, read_trace
from autoscaler.whatif.scenario import Scenario, ScenarioError

Make = Callable[..., Scenario]


@pytest.fixture
def scenario(tmp_path: Path) -> Make:
    def make(**changes: object) -> Scenario:
        base: dict[str, object] = {
            "name": "x",
            "policies": tmp_path / "p.yaml",
            "profile": "any",
            "trace": "bundled:azure2024-code",
        }
        return Scenario.model_validate({**base, **changes})

    return make


def requests_csv(folder: Path, **columns: list[object]) -> str:
    base: dict[str, list[object]] = {
        "timestamp": ["2024-05-10T00:00:10Z", "2024-05-10T00:00:05Z", "2024-05-10T00:02:30Z"],
        "input_tokens": [10, 20, 30],
        "output_tokens": [1, 2, 3],
    }
    path = folder / "trace.csv"
    pd.DataFrame({**base, **columns}).to_csv(path, index=False)
    return str(path)


def test_the_bundled_trace_ends_before_the_day_that_is_kept_unseen() -> None:
    trace = read_trace("bundled:azure2024-code")
    assert len(trace) == 6 * 144
    assert trace.timestamp.iloc[0] == pd.Timestamp("2024-05-10T00:00Z")
    assert trace.timestamp.iloc[-1] == pd.Timestamp("2024-05-15T23:50Z")
    assert trace.requests.min() > 0
    assert (trace.output_tokens == 28 * trace.requests).all()


def test_a_trace_of_intervals_is_scaled_and_drawn(scenario: Make) -> None:
    got = read_arrivals(scenario(meanRequestsPerSecond=0.5), ["prod/code"])
    requests = got.services["prod/code"]
    span = got.end_seconds - got.start_seconds
    assert span == 6 * 86_400
    # 259,200 expected; Poisson and bursts with a memory of a minute move it by well below 2 %
    assert len(requests.arrive_seconds) / span == pytest.approx(0.5, rel=0.02)
    assert requests.output_tokens.mean() == pytest.approx(28.0, rel=0.03)


def test_the_same_seed_gives_the_same_requests(scenario: Make) -> None:
    first, again, other = (
        read_arrivals(scenario(meanRequestsPerSecond=0.1, seed=seed), ["prod/code"]).services[
            "prod/code"
        ]
        for seed in (3, 3, 4)
    )
    assert np.array_equal(first.arrive_seconds, again.arrive_seconds)
    assert not np.array_equal(first.arrive_seconds[:100], other.arrive_seconds[:100])


def test_a_trace_of_requests_is_replayed_in_order_of_time(scenario: Make, tmp_path: Path) -> None:
    got = read_arrivals(scenario(trace=requests_csv(tmp_path)), ["prod/code"])
    requests = got.services["prod/code"]
    start = pd.Timestamp("2024-05-10T00:00Z").timestamp()
    assert (got.start_seconds, got.end_seconds) == (start, start + 120)  # whole minutes
    assert requests.arrive_seconds.tolist() == [start + 5, start + 10]
    assert requests.input_tokens.tolist() == [20, 10]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"input_tokens": [10, 0, 30]}, "input_tokens, row 0: 0; allowed: a number >= 1"),
        ({"timestamp": ["2024-05-10T00:00:10"] * 3}, "has no time zone; allowed: UTC"),
        ({"timestamp": ["then", "now", "soon"]}, "column timestamp"),
    ],
)
def test_a_trace_with_a_mistake_is_refused(
    scenario: Make, tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(ScenarioError, match=message.replace("(", r"\(")):
        read_arrivals(scenario(trace=requests_csv(tmp_path, **columns)), ["prod/code"])


def test_single_requests_are_not_scaled(scenario: Make, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="meanRequestsPerSecond"):
        read_arrivals(
            scenario(trace=requests_csv(tmp_path), meanRequestsPerSecond=2.0), ["prod/code"]
        )


def test_missing_columns_and_unknown_bundles_are_named(scenario: Make, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("timestamp,requests\n2024-05-10T00:00:10Z,1\n")
    with pytest.raises(ScenarioError, match="input_tokens, output_tokens is missing"):
        read_arrivals(scenario(trace=str(tmp_path / "bad.csv")), ["prod/code"])
    with pytest.raises(ScenarioError, match="no bundled trace 'x'; allowed: azure2024-code"):
        read_arrivals(scenario(trace="bundled:x"), ["prod/code"])


def test_a_trace_is_of_one_service(scenario: Make) -> None:
    with pytest.raises(ScenarioError, match="service: is required"):
        read_arrivals(scenario(), ["a/a", "b/b"])
    with pytest.raises(ScenarioError, match="'c/c' has no policy; allowed: a/a, b/b"):
        read_arrivals(scenario(service="c/c"), ["a/a", "b/b"])


def test_telemetry_gives_every_service_its_own_requests(scenario: Make, tmp_path: Path) -> None:
    stamps = pd.date_range("2026-01-05", periods=120, freq="60s", tz="UTC")
    frames = [
        pd.DataFrame(
            {
                "ts": stamps,
                "service": name,
                "requests": 60.0 * rate,
                "input_tokens": 60.0 * rate * 500,
                "output_tokens": 60.0 * rate * 100,
            }
        )
        for name, rate in (("a/a", 2.0), ("b/b", 6.0))
    ]
    frames[0].loc[30:60, ["requests", "input_tokens", "output_tokens"]] = np.nan  # a gap: bridged
    pd.concat(frames).to_parquet(tmp_path / "load.parquet")
    got = read_arrivals(scenario(trace=None, telemetry=tmp_path), ["a/a", "b/b"])
    # two hours: 14,400 and 43,200 expected, Poisson (0.8 % and 0.5 %); minutes get no bursts added
    assert len(got.services["a/a"].arrive_seconds) == pytest.approx(14_400, rel=0.03)
    assert len(got.services["b/b"].arrive_seconds) == pytest.approx(43_200, rel=0.02)
    known = scenario(trace=None, telemetry=tmp_path)
    assert set(read_arrivals(known, ["a/a", "c/c"]).services) == {"a/a"}
    with pytest.raises(ScenarioError, match="no rows of service c/c, which has a policy"):
        read_arrivals(scenario(trace=None, telemetry=tmp_path), ["c/c"])
