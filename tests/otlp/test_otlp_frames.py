import math
from collections.abc import Mapping

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from otlp_builders import POD, T0, counter, export, fold_all, frames_of, gauge, histogram

from models.frames import FrameError
from models.otlp_block import CODED_SIGNALS, from_bytes, from_cells, to_bytes
from models.otlp_fold import Fold
from models.otlp_identity import Identity, IdentityError, check_template, parse_rules
from models.otlp_names import SIGNALS


def engine(
    at: float,
    done: float,
    running: float,
    waiting: float,
    *,
    start: float = 0,
    resource: Mapping[str, str] | None = None,
) -> ExportMetricsServiceRequest:
    """One export of one vLLM pod: `done` requests in all, and who is inside."""
    return export(
        # gauges first: the fold must not depend on the sender's order
        gauge("vllm:num_requests_running", running, at),
        gauge("vllm:num_requests_waiting", waiting, at),
        gauge("vllm:kv_cache_usage_perc", 0.5, at),
        counter("vllm:request_success_total", done, at, start),
        counter("vllm:prompt_tokens_total", done * 100, at, start),
        counter("vllm:generation_tokens_total", done * 20, at, start),
        resource=resource,
    )


def test_arrivals_are_completions_and_the_change_of_who_is_inside() -> None:
    fold = fold_all(engine(0, 0, 0, 0), engine(60, 30, 8, 4), engine(120, 80, 2, 0))
    frames = frames_of(fold)
    # first minute: 30 done and 12 more inside; second: 50 done and 10 fewer inside
    assert list(frames.load.requests) == pytest.approx([42.0, 40.0])
    assert list(frames.serving.arrival_rate_rps) == pytest.approx([42 / 60, 40 / 60])
    assert list(frames.serving.finished_requests) == pytest.approx([30.0, 50.0])
    # gauges: the mean of the ends of a minute
    assert list(frames.serving.running) == pytest.approx([4.0, 5.0])
    assert list(frames.serving.waiting) == pytest.approx([2.0, 2.0])
    assert list(frames.serving.ready_replicas) == pytest.approx([1.0, 1.0])
    assert list(frames.serving.isl_tokens) == pytest.approx([100.0, 100.0])
    assert list(frames.load.input_tokens) == pytest.approx([4200.0, 4000.0])
    assert list(frames.load.output_tokens) == pytest.approx([840.0, 800.0])
    assert set(frames.load.service) == {"prod/chat"}
    assert set(frames.serving.variant) == {"h100"}
    assert frames.serving.ttft_p95_seconds.isna().all()  # nobody said anything: not zero


def test_a_restart_makes_neither_completions_nor_arrivals_negative() -> None:
    # 30 done and 12 inside, then another process from 70 s on: 5 done and 3 inside
    fold = fold_all(engine(0, 0, 0, 0), engine(60, 30, 8, 4), engine(120, 5, 3, 0, start=70))
    load = frames_of(fold).load
    assert list(load.requests) == pytest.approx([42.0, 8.0])


def test_replicas_and_their_load_add_up() -> None:
    other = {**POD, "k8s.pod.name": "b"}
    fold = fold_all(
        engine(0, 0, 0, 0),
        engine(0, 0, 0, 0, resource=other),
        engine(60, 30, 6, 0),
        engine(60, 10, 2, 0, resource=other),
    )
    (row,) = frames_of(fold).serving.to_dict("records")
    assert row["ready_replicas"] == pytest.approx(2.0)
    assert row["running"] == pytest.approx(4.0)  # means 3 and 1
    assert row["arrival_rate_rps"] == pytest.approx(48 / 60)
    assert row["kv_cache_usage_ratio"] == pytest.approx(0.5)


def test_a_gap_has_no_row() -> None:
    # minutes 0 and 20 are observed; what happened in between cannot be placed
    fold = fold_all(
        engine(0, 0, 0, 0), engine(60, 30, 0, 0), engine(1200, 900, 0, 0), engine(1260, 930, 0, 0)
    )
    load = frames_of(fold).load
    assert [t.timestamp() - T0 for t in load.ts] == [0, 1200]
    assert list(load.requests) == pytest.approx([30.0, 30.0])


def test_an_idle_minute_is_zero_not_missing() -> None:
    fold = fold_all(engine(0, 7, 0, 0), engine(60, 7, 0, 0))
    frames = frames_of(fold)
    assert list(frames.load.requests) == [0.0]
    assert list(frames.load.input_tokens) == [0.0]
    assert math.isnan(frames.serving.isl_tokens.iloc[0])


def test_exports_that_do_not_fit_the_bins_are_shared_out() -> None:
    # 60 requests over (45, 105]: 15 s of them in the first minute, 45 s in the second
    fold = fold_all(*(engine(at, n, 0, 0, start=45) for at, n in ((45, 0), (105, 60), (165, 60))))
    second = frames_of(fold).load
    # the first minute was seen for 15 s only and has no row
    assert [t.timestamp() - T0 for t in second.ts] == [60]
    assert list(second.requests) == pytest.approx([45.0])


def test_the_gateway_counts_arrivals_and_is_no_replica() -> None:
    gateway = {**POD, "k8s.deployment.name": "epp"}
    fold = fold_all(
        engine(0, 0, 0, 0),
        engine(60, 30, 0, 0),
        export(counter("llm_d_epp_request_total", 0, 0, None), resource=gateway),
        export(counter("llm_d_epp_request_total", 50, 60, None), resource=gateway),
    )
    frames = frames_of(fold)
    assert list(frames.load.requests) == pytest.approx([50.0])
    assert list(frames.load.input_tokens) == pytest.approx([5000.0])
    assert list(frames.serving.variant) == ["h100"]
    assert list(frames.serving.arrival_rate_rps) == pytest.approx([0.5])


def test_the_conventions_alone_give_load_lengths_and_latency() -> None:
    def usage(kind: str, values: list[float], at: float) -> ExportMetricsServiceRequest:
        metric = histogram(
            "gen_ai.client.token.usage", values, at, 0, bounds=[64, 256], unit="{token}"
        )
        attribute = metric.histogram.data_points[0].attributes.add(key="gen_ai.token.type")
        attribute.value.string_value = kind
        return export(metric)

    fold = fold_all(
        export(histogram("gen_ai.server.request.duration", [1.0, 2.0, 2.0], 60, 0)),
        export(histogram("gen_ai.server.time_to_first_token", [0.3, 0.3, 0.3], 60, 0)),
        usage("input", [100.0, 200.0, 300.0], 60),
        usage("output", [10.0, 20.0, 30.0], 60),
    )
    (row,) = frames_of(fold).serving.to_dict("records")
    assert row["arrival_rate_rps"] == pytest.approx(3 / 60)
    assert (row["isl_tokens"], row["osl_tokens"]) == pytest.approx((200.0, 20.0))
    assert row["ttft_p50_seconds"] == pytest.approx(0.3)  # half way through (0.1, 0.5]


def test_a_pod_that_tells_its_creation_is_a_start() -> None:
    late = {**POD, "k8s.pod.name": "b", "k8s.pod.start_time": "2026-01-05T00:02:00Z"}
    fold = fold_all(
        engine(0, 0, 0, 0),
        engine(60, 0, 0, 0),
        engine(210, 0, 0, 0, start=210, resource=late),
        engine(270, 0, 0, 0, start=210, resource=late),
    )
    (row,) = frames_of(fold).startups.to_dict("records")
    assert (row["ready_ts"] - row["created_ts"]).total_seconds() == pytest.approx(90.0)


def test_rules_come_before_templates_and_nobody_is_lumped_together() -> None:
    rules = parse_rules(
        [
            {
                "match": {"k8s.deployment.name": "h*"},
                "service": "{k8s.namespace.name}/assistant",
                "variant": "fast",
            }
        ],
        "map.yaml",
    )
    known = Identity(rules=rules)
    assert known.of(POD) == ("prod/assistant", "fast")
    assert known.of({"service.name": "x"}) == ("default/x", "default")
    assert known.of({}) is None
    fold = fold_all(engine(0, 0, 0, 0, resource={}), engine(60, 5, 0, 0, resource={}))
    frames = frames_of(fold, known)
    assert frames.load.empty
    assert frames.unnamed_sources == ({},)


@pytest.mark.parametrize("text", ["", "{", "{a}}", "{a||b}", "{=x|a}"])
def test_templates_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(IdentityError, match=r"--service.*allowed"):
        check_template(text, "--service")


@pytest.mark.parametrize(
    "document", [{}, [1], [{"match": {}, "service": "a", "variant": "b"}], [{"match": {"a": "b"}}]]
)
def test_rules_that_make_no_sense_are_refused(document: object) -> None:
    with pytest.raises(IdentityError, match=r"map\.yaml.*allowed"):
        parse_rules(document, "map.yaml")


def test_an_interval_of_broken_bins_is_refused() -> None:
    with pytest.raises(FrameError, match="multiple"):
        frames_of(Fold(bin_seconds=30), interval_seconds=45)


def test_every_signal_has_a_code_of_its_own() -> None:
    assert set(CODED_SIGNALS) == set(SIGNALS)
    assert len(CODED_SIGNALS) == len(SIGNALS)
    assert CODED_SIGNALS.index("gateway_queue") == 23  # stores hold these numbers


def test_cells_survive_the_store() -> None:
    fold = fold_all(export(histogram("vllm:time_to_first_token_seconds", [0.3, 9.0], 60, 0)))
    block = from_cells(fold.cells, 30)
    back = from_bytes(to_bytes(block))
    assert len(back) == 2  # two bins of one signal
    assert back.bins.tolist() == [T0 // 30, T0 // 30 + 1]
    assert back.bounds.tolist() == [[0.1, 0.5], [5.0, math.inf]]
    assert back.amounts.tolist() == [0.5] * 4
    for damaged in (b"[1]", to_bytes(block)[:-3], to_bytes(block)[:8] + b"x" * 40):
        with pytest.raises(ValueError, match="not a stored block"):
            from_bytes(damaged)
