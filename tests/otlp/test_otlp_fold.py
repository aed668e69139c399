import pytest
from otlp_builders import ANY_TIME, NS, T0, counter, exponential, export, gauge

from models.otlp_fold import Fold, FoldFullError, FoldLimits
from models.otlp_names import IDENTITY_ATTRIBUTES
from models.otlp_points import Request, metric_points

SUCCESS = "vllm:request_success_total"
LONG = float("inf")


def limited(**limits: int) -> Fold:
    return Fold(
        bin_seconds=30,
        limits=FoldLimits(late_seconds=LONG, early_seconds=LONG, **limits),  # type: ignore[arg-type]
    )


def test_series_beyond_the_limit_are_refused_and_the_known_go_on() -> None:
    fold = limited(series=2)

    def send(at: float, names: str) -> list[str]:
        metrics = [counter(SUCCESS, at, at, 0, labels={"x": x}) for x in names]
        return fold.add_points(metric_points(export(*metrics), IDENTITY_ATTRIBUTES), 0.0)

    assert send(30, "abcd") == ["too many series; allowed: 2"] * 2
    assert send(60, "abe") == ["too many series; allowed: 2"]
    assert sum(c["success"].total for c in fold.cells.values()) == pytest.approx(120.0)


def test_sources_beyond_the_limit_are_refused() -> None:
    fold = limited(sources=1)
    for pod, refused in (("a", 0), ("b", 1), ("a", 0)):
        message = export(gauge("vllm:num_requests_running", 1.0, 0), resource={"pod": pod})
        assert len(fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), 0.0)) == refused


def test_buckets_of_all_series_are_bounded() -> None:
    fold = limited(state_buckets=500)
    refused = 0
    for i in range(10):
        metric = exponential(
            "vllm:time_to_first_token_seconds", [1] * 100, 60, 0, scale=3, offset=0
        )
        metric.exponential_histogram.data_points[0].attributes.add(key="x").value.int_value = i
        refused += len(fold.add_points(metric_points(export(metric), IDENTITY_ATTRIBUTES), 0.0))
    assert refused == 5


def test_what_waits_for_the_store_is_bounded_and_the_client_told_to_wait() -> None:
    fold = limited(cells=10)

    def send(i: int) -> list[str]:
        message = export(counter(SUCCESS, i, i * 30.0, 0 if i else None))
        return fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), 0.0)

    # the first has no span; nine cells are more than 80 % of ten
    assert [send(i) for i in range(10)] == [[]] * 10
    with pytest.raises(FoldFullError):
        send(10)
    assert len(fold.cells) == 9
    fold.taken()
    message = export(counter(SUCCESS, 500, 3600, None))
    assert fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), 0.0) == []


def test_clocks_that_are_wrong_are_refused() -> None:
    fold = Fold(bin_seconds=30)
    for at, says in ((-4000, "4000 s old"), (400, "400 s in the future")):
        message = export(gauge("vllm:num_requests_running", 1.0, at))
        (reason,) = fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), float(T0))
        assert says in reason


def test_silent_series_make_room() -> None:
    fold = limited(series=1)
    for i in range(3):
        message = export(counter(SUCCESS, 1, i * 7200.0 + 60, i * 7200.0, labels={"x": str(i)}))
        assert fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), 0.0) == []
        fold.taken()
        assert len(fold.forget_idle(T0 + i * 7200.0 + 7000)) == 1
    assert not fold.series
    assert not fold.sources


def test_a_request_told_twice_counts_once() -> None:
    fold = Fold(bin_seconds=30, limits=ANY_TIME)
    start = T0 * NS
    one = Request((("pod", "a"),), b"12345678", start, start + 40 * NS, 100.0, 11.0, 30.0, 40.0)
    assert fold.add_requests([one, one], 0.0) == []
    (first, _), (second, _) = sorted(fold.cells)
    assert second == first + 1
    early, late = fold.cells[first, 1], fold.cells[second, 1]
    # it arrives in the first bin; its first token, after 30 s, and its end fall into the second
    assert set(early) == {"span_arrivals", "span_input", "span_output"}
    assert early["span_arrivals"].total == 1.0
    assert set(late) == {"span_finished", "span_ttft", "span_tpot"}
    assert late["span_tpot"].total == pytest.approx(1.0)  # (40 - 30) / (11 - 1)
