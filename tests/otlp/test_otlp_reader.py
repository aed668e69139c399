import math
from dataclasses import replace
from pathlib import Path

import pytest
from otlp_builders import T0, counter, export, fold_all, gauge, histogram, policy, read_store

from autoscaler.core.types import Policies
from autoscaler.edge.otlp_reader import OtlpReader, OtlpReaderSettings, read_load_history
from autoscaler.edge.otlp_store import OtlpStore
from autoscaler.edge.reading import Reading
from models.otlp_identity import Identity

CHAT = policy("prod/chat", "h100", ttft=0.5)
POLICIES = Policies({"prod/chat": CHAT}, ())


def exported(name: str, at: float, rps: float, variant: str = "h100") -> object:
    done = rps * at
    return export(
        gauge("vllm:num_requests_running", 4.0, at),
        gauge("vllm:num_requests_waiting", 1.0, at),
        gauge("vllm:kv_cache_usage_perc", 0.25, at),
        counter("vllm:request_success_total", done, at, 0),
        counter("vllm:prompt_tokens_total", done * 100, at, 0),
        counter("vllm:generation_tokens_total", done * 20, at, 0),
        # three of four within 0.5 s
        histogram("vllm:time_to_first_token_seconds", [0.3, 0.3, 0.3, 0.7] * int(done), at, 0),
        resource={
            "k8s.namespace.name": "prod",
            "service.name": "chat",
            "k8s.deployment.name": variant,
            "k8s.pod.name": name,
        },
    )


def written(folder: Path, *exports: object) -> None:
    ordered = sorted(exports, key=_time)
    with OtlpStore(folder, bin_seconds=30) as store:
        store.flush(fold_all(*ordered))


def _time(message: object) -> int:
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]  # type: ignore[attr-defined]
    return int(getattr(metric, metric.WhichOneof("data")).data_points[0].time_unix_nano)


def read(folder: Path, at: float, policies: Policies = POLICIES, seconds: float = 60.0) -> Reading:
    settings = OtlpReaderSettings(interval_seconds=seconds)
    with OtlpReader(folder, Identity(), settings) as reader:
        return reader.read(policies, T0 + at)


def every(seconds: float, first: float, last: float) -> list[float]:
    out = []
    while first <= last:
        out.append(first)
        first += seconds
    return out


def test_an_observation_of_two_pods_out_of_step(tmp_path: Path) -> None:
    a = [exported("a", t, 5.0) for t in every(15, 15, 600)]
    b = [exported("b", t, 2.0) for t in every(60, 35, 600)]  # its last export is 25 s older: 575
    written(tmp_path, *a, *b)
    reading = read(tmp_path, 610)
    assert reading.failed == {}
    assert reading.silent == ()
    assert reading.partial == {}
    assert reading.counted_by_scrapes == ("prod/chat",)
    assert reading.observation.now_seconds == T0 + 610
    chat = reading.observation.services["prod/chat"]
    assert chat.arrival_rate_rps == pytest.approx(
        7.0
    )  # not less for the minute that b has not told
    assert chat.isl_tokens == pytest.approx(100.0)
    assert chat.osl_tokens == pytest.approx(20.0)
    seen = chat.variants["h100"]
    assert (seen.ready, seen.starting, seen.draining, seen.desired) == (2, 0, 0, 2)
    assert seen.running == pytest.approx(8.0)
    assert seen.waiting == pytest.approx(2.0)
    assert seen.kv_cache_usage_ratio == pytest.approx(0.25)
    assert seen.finished_requests == pytest.approx(420.0)
    assert seen.ttft_p50_seconds == pytest.approx(0.1 + 0.4 * (0.5 / 0.75))
    assert seen.ttft_within_slo_ratio == pytest.approx(0.75)  # 0.5 s is the bound of a bucket
    assert math.isnan(seen.tpot_p50_seconds)  # nobody told: not zero
    assert math.isnan(seen.tpot_within_slo_ratio)
    assert math.isnan(seen.slo_attainment_ratio)


@pytest.mark.parametrize("seconds", [15.0, 45.0, 60.0, 90.0])
def test_the_window_is_the_interval_whatever_the_bins(tmp_path: Path, seconds: float) -> None:
    written(tmp_path, *(exported("a", t, 5.0) for t in every(10, 10, 607)))
    seen = read(tmp_path, 607, seconds=seconds).observation.services["prod/chat"]
    assert seen.arrival_rate_rps == pytest.approx(5.0)
    assert seen.variants["h100"].finished_requests == pytest.approx(5.0 * seconds)


def test_training_and_the_tick_read_the_same(tmp_path: Path) -> None:
    done = 0.0
    exports = []
    for i in range(1, 41):  # load that moves: 15 s steps
        done += i
        exports.append(exported("a", 15.0 * i, done / (15.0 * i)))
    written(tmp_path, *exports)
    trained = read_store(tmp_path).serving.iloc[-1]
    seen = read(tmp_path, 600).observation.services["prod/chat"]
    assert trained.ts.timestamp() == T0 + 540
    assert seen.arrival_rate_rps == pytest.approx(trained.arrival_rate_rps, rel=1e-6)
    assert seen.isl_tokens == pytest.approx(trained.isl_tokens, rel=1e-6)
    variant = seen.variants["h100"]
    for column in ("running", "waiting", "finished_requests", "ttft_p95_seconds"):
        assert getattr(variant, column) == pytest.approx(trained[column], rel=1e-6), column


def test_a_pod_that_went_away_neither_holds_back_nor_lingers(tmp_path: Path) -> None:
    a = [exported("a", t, 5.0) for t in every(15, 15, 600)]
    gone = [exported("gone", t, 5.0) for t in every(15, 15, 450)]
    written(tmp_path, *a, *gone)
    seen = read(tmp_path, 605).observation.services["prod/chat"]
    assert seen.arrival_rate_rps == pytest.approx(5.0)
    assert seen.variants["h100"].ready == 1


def test_old_samples_are_stale_and_no_samples_silent(tmp_path: Path) -> None:
    written(tmp_path, *(exported("a", t, 5.0) for t in every(15, 15, 600)))
    reading = read(tmp_path, 720)
    assert reading.stale == {"prod/chat": pytest.approx(120.0)}
    assert reading.silent == ("prod/chat",)
    assert read(tmp_path, 5000).silent == ("prod/chat",)
    assert read(tmp_path, 5000).stale == {}
    assert read(tmp_path, -5000).silent == ("prod/chat",)


def test_a_service_that_just_began_is_silent_until_an_interval_is_known(tmp_path: Path) -> None:
    written(tmp_path, *(exported("a", t, 5.0) for t in (10.0, 20.0, 30.0)))
    assert read(tmp_path, 31).silent == ("prod/chat",)
    assert read(tmp_path, 31).stale == {}


def test_what_a_service_does_not_tell_is_partial(tmp_path: Path) -> None:
    exports = []
    for t in every(15, 15, 600):
        message = exported("a", t, 5.0)
        metrics = message.resource_metrics[0].scope_metrics[0].metrics  # type: ignore[attr-defined]
        kept = [m for m in metrics if "tokens_total" not in m.name]
        del metrics[:]
        metrics.extend(kept)
        exports.append(message)
    written(tmp_path, *exports)
    reading = read(tmp_path, 605)
    assert reading.partial == {"prod/chat": ("isl_tokens", "osl_tokens")}
    assert math.isnan(reading.observation.services["prod/chat"].isl_tokens)


def test_two_variants_and_a_gateway(tmp_path: Path) -> None:
    one = [exported("a", t, 5.0) for t in every(15, 15, 600)]
    two = [exported("b", t, 1.0, variant="l4") for t in every(15, 15, 600)]
    gateway = [
        export(
            counter("llm_d_epp_request_total", 8.0 * t, t, 0),
            gauge("llm_d_epp_flow_control_queue_size", 3.0, t),
            resource={"k8s.namespace.name": "prod", "service.name": "chat", "k8s.pod.name": "epp"},
        )
        for t in every(30, 30, 600)
    ]
    written(tmp_path, *one, *two, *gateway)
    policies = Policies({"prod/chat": policy("prod/chat", "h100", "l4", ttft=0.6)}, ())
    seen = read(tmp_path, 605, policies).observation.services["prod/chat"]
    assert seen.arrival_rate_rps == pytest.approx(8.0)  # the gateway's, not the 6 that finished
    assert seen.variants["h100"].finished_requests == pytest.approx(300.0)
    assert seen.variants["l4"].finished_requests == pytest.approx(60.0)
    # one waits in each engine, and of the three in the gateway each variant has its share
    assert seen.variants["h100"].waiting == pytest.approx(1.0 + 1.5)
    assert seen.variants["l4"].waiting == pytest.approx(1.0 + 1.5)
    # 0.6 s lies in (0.5, 1.0], which holds a quarter: a fifth of that quarter is taken as within
    assert seen.variants["l4"].ttft_within_slo_ratio == pytest.approx(0.75 + 0.25 * 0.2)
    assert math.isnan(seen.variants["l4"].slo_attainment_ratio)


def test_a_variant_that_the_policy_does_not_name_is_told(tmp_path: Path) -> None:
    written(tmp_path, *(exported("a", t, 5.0, variant="b200") for t in every(15, 15, 600)))
    reading = read(tmp_path, 605)
    assert reading.partial == {"prod/chat": ("variant 'b200' is not in the policy",)}
    assert reading.observation.services["prod/chat"].variants == {}
    assert reading.observation.services["prod/chat"].arrival_rate_rps == pytest.approx(5.0)


def test_a_single_variant_may_carry_no_name(tmp_path: Path) -> None:
    written(tmp_path, *(exported("a", t, 5.0, variant="default") for t in every(15, 15, 600)))
    seen = read(tmp_path, 605).observation.services["prod/chat"]
    assert seen.variants["h100"].ready == 1


def test_attainment_of_both_targets(tmp_path: Path) -> None:
    exports = []
    for t in every(15, 15, 600):
        message = exported("a", t, 4.0)
        tpot = histogram(
            "vllm:request_time_per_output_token_seconds",
            [0.05] * int(4.0 * t),
            t,
            0,
            bounds=(0.1, 0.25),
        )
        metrics = message.resource_metrics[0].scope_metrics[0].metrics  # type: ignore[attr-defined]
        metrics.append(tpot)
        exports.append(message)
    written(tmp_path, *exports)
    targets = replace(CHAT.targets, ttft_seconds=0.5, tpot_seconds=0.25)
    policies = Policies({"prod/chat": replace(CHAT, targets=targets)}, ())
    seen = read(tmp_path, 605, policies).observation.services["prod/chat"].variants["h100"]
    assert seen.tpot_within_slo_ratio == pytest.approx(1.0)
    assert seen.slo_attainment_ratio == pytest.approx(0.75)  # everybody is within the other


def test_no_store_fails_in_one_sentence(tmp_path: Path) -> None:
    reading = read(tmp_path, 0)
    assert reading.silent == ("prod/chat",)
    assert "no such file; allowed: what `foreserve otlp` writes" in reading.failed["store"]
    (tmp_path / "otlp.sqlite").write_bytes(b"text, not a database" * 100)
    assert "allowed: a store" in read(tmp_path, 0).failed["store"]


def test_a_reading_that_takes_too_long_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, *(exported("a", t, 5.0) for t in every(15, 15, 600)))
    monkeypatch.setattr("autoscaler.edge.otlp_reader.CHECK_INSTRUCTIONS", 1)
    settings = OtlpReaderSettings(deadline_seconds=0.0)
    with OtlpReader(tmp_path, Identity(), settings) as reader:
        reading = reader.read(POLICIES, T0 + 605.0)
    assert "not read within the tick's 0 s" in reading.failed["store"]
    assert reading.silent == ("prod/chat",)


def test_history_for_the_controller(tmp_path: Path) -> None:
    written(tmp_path, *(exported("a", t, 5.0) for t in every(15, 15, 1215)))
    asked = {"step_seconds": 60.0, "keep_steps": 10, "now_seconds": T0 + 1270.0}
    series = read_load_history(tmp_path, Identity(), POLICIES, **asked)  # type: ignore[arg-type]
    assert series is not None
    assert series.services == ("prod/chat",)
    assert series.values.shape == (1, 10, 3)
    assert series.end_seconds == T0 + 1200
    assert series.values[0, :, 0].tolist() == pytest.approx([300.0] * 10)
    assert series.values[0, :, 1].tolist() == pytest.approx([30_000.0] * 10)
    other = Policies({"prod/other": policy("prod/other", "h100")}, ())
    assert read_load_history(tmp_path, Identity(), other, **asked) is None  # type: ignore[arg-type]
