"""Samples for real servers: a fleet whose numbers are known, and recorded pages of a real vLLM."""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "vllm"
START = 1_750_000_020  # a whole minute; long past, whatever the machine's clock says
SCRAPE = 15
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5)

Sample = tuple[str, str, float, float]  # name, labels, time in seconds, value


def openmetrics(samples: Iterable[Sample], path: Path) -> Path:
    with path.open("w") as out:
        for name, labels, at, value in samples:
            out.write(f"{name}{{{labels}}} {value!r} {at:.3f}\n")
        out.write("# EOF\n")
    return path


def text_format(samples: Iterable[Sample]) -> Iterator[str]:
    for name, labels, at, value in samples:
        yield f"{name}{{{labels}}} {value!r} {round(at * 1000)}"


def labels(service: str, pod: str, *, variant: str = "h100", job: str = "engines") -> str:
    return (
        f'namespace="prod",service="{service}",variant="{variant}",pod="{pod}",instance="{pod}:8000",'
        f'job="{job}",engine="0",model_name="{service}-model"'
    )


def engine(
    mark: str,
    at: float,
    finished: float,
    *,
    running: float = 8.0,
    waiting: float = 2.0,
    ttft: float = 0.3,
) -> Iterator[Sample]:
    """One scrape of a vLLM that has finished so many requests of 100 + 50 tokens since it started."""
    yield "vllm:request_success_total", f'{mark},finished_reason="stop"', at, finished
    yield "vllm:num_requests_running", mark, at, running
    yield "vllm:num_requests_waiting", mark, at, waiting
    yield "vllm:kv_cache_usage_perc", mark, at, 0.25
    yield "vllm:prefix_cache_queries_total", mark, at, 100.0 * finished
    yield "vllm:prefix_cache_hits_total", mark, at, 20.0 * finished
    for name, mean in (
        ("vllm:request_prompt_tokens", 100.0),
        ("vllm:request_generation_tokens", 50.0),
    ):
        yield f"{name}_sum", mark, at, mean * finished
        yield f"{name}_count", mark, at, finished
    yield from histogram("vllm:time_to_first_token_seconds", mark, at, finished, ttft)
    yield from histogram("vllm:request_time_per_output_token_seconds", mark, at, finished, 0.2)


def histogram(name: str, mark: str, at: float, count: float, value: float) -> Iterator[Sample]:
    for bound in (*BUCKETS, float("inf")):
        le = "+Inf" if bound == float("inf") else f"{bound}"
        yield f"{name}_bucket", f'{mark},le="{le}"', at, count if value <= bound else 0.0
    yield f"{name}_count", mark, at, count
    yield f"{name}_sum", mark, at, count * value


def fleet() -> Iterator[Sample]:
    """An hour of three services (the numbers that tests expect are worked out from this).

    chat: pod chat-0 finishes 2/s; restarts at minute 20 (counters from zero, 4/s from then); no
    scrape in minutes 30 to 40. Scraped by two jobs: every number is there twice. Pod chat-1 finishes
    1/s from minute 42 to 48, then vanishes with 10 requests in flight.
    mail: two variants, h100 at 1/s and l4 at 0.5/s; the gateway holds 4 + 2 requests for it. idle:
    nothing ever finishes.
    """
    for k in range(3600 // SCRAPE + 1):
        at = float(START + k * SCRAPE)
        second = k * SCRAPE
        if not 1800 < second < 2400:
            done = 2.0 * second if second < 1200 else 4.0 * (second - 1200)
            for job in ("engines", "engines-again"):
                yield from engine(labels("chat", "chat-0", job=job), at, done)
        if 2520 <= second < 2880:
            yield from engine(labels("chat", "chat-1"), at, 1.0 * (second - 2520))
        yield from engine(labels("mail", "mail-0"), at, 1.0 * second)
        yield from engine(labels("mail", "mail-l4-0", variant="l4"), at, 0.5 * second, ttft=0.7)
        yield from engine(labels("idle", "idle-0"), at, 0.0, running=0.0, waiting=0.0)
        yield from kubernetes(at, second)
        gateway = (
            'namespace="prod",pod="epp-0",instance="epp-0:9090",target_model_name="mail-model"'
        )
        yield (
            "llm_d_epp_request_total",
            f'{gateway},model_name="mail",priority="0"',
            at,
            3.0 * second,
        )
        for name in ("llm_d_epp", "inference_extension"):  # old name beside new: never both
            for tenant, held in (("a", 4.0), ("b", 2.0)):
                queue = f'{gateway},model_name="mail",inference_pool="p",priority="0"'
                yield (
                    f"{name}_flow_control_queue_size",
                    f'{queue},fairness_id="{tenant}"',
                    at,
                    held,
                )


def kubernetes(at: float, second: float) -> Iterator[Sample]:
    """kube-state-metrics: chat-1 took 120 s to ready and drains from minute 47; chat-2 was given up
    at minute 50."""
    for pod, created, ready, until in (
        ("chat-0", -600, -500, 1e9),
        ("chat-1", 2400, 2520, 2880),
        ("chat-2", 2700, None, 3000),
    ):
        if not created <= second <= until:
            continue
        who = f'namespace="prod",pod="{pod}",uid="u-{pod}",instance="ksm:8080",job="ksm"'
        yield "kube_pod_created", who, at, START + created
        owner = f'{who},owner_kind="ReplicaSet",owner_name="chat-5d9c7f"'
        yield "kube_pod_owner", owner, at, 1.0
        if ready is not None and second >= ready:
            yield "kube_pod_status_ready_time", who, at, START + ready
        if pod == "chat-1" and second >= 2820:  # asked to end by minute 48
            yield "kube_pod_deletion_timestamp", who, at, START + 2880.0


def recorded(name: str, shift_to: float = START + 2.5) -> tuple[list[Sample], float]:
    """Return the recorded scrapes of a real vLLM, moved in time, and by how many seconds.

    Scrapes fall between the minutes, as they nearly always do (Prometheus spreads its targets).
    """
    mark = 'namespace="lab",service="tiny",variant="cpu",pod="tiny-0",instance="tiny-0:8100",job="engines"'
    samples: list[Sample] = []
    at, shift = 0.0, None
    with gzip.open(DATA / f"{name}_scrapes.txt.gz", "rt") as lines:
        for line in lines:
            if line.startswith("## scrape"):
                at = float(line.split()[2])
                shift = shift_to - at if shift is None else shift
                continue
            series, _, value = line.rpartition(" ")
            metric, _, inside = series.partition("{")
            samples.append(
                (metric, f"{mark},{inside.rstrip('}')}", at + (shift or 0.0), float(value))
            )
    return samples, shift or 0.0


def sglang() -> Iterator[Sample]:
    """Ten minutes of one SGLang pod at 2 requests/s, two tensor-parallel ranks that repeat every gauge.

    A second service runs a vLLM before V1: the old names of KV usage and of time per token.
    """
    for k in range(600 // SCRAPE + 1):
        at, done = float(START + k * SCRAPE), 2.0 * k * SCRAPE
        for rank in ("0", "1"):
            who = (
                'namespace="prod",service="sg",variant="b200",pod="sg-0",instance="sg-0:30000",'
                f'model_name="sg-model",tp_rank="{rank}"'
            )
            yield "sglang:num_running_reqs", who, at, 6.0
            yield "sglang:num_queue_reqs", who, at, 1.0
            yield "sglang:token_usage", who, at, 0.5
        first = who.replace('tp_rank="1"', 'tp_rank="0"')
        yield "sglang:num_requests_total", first, at, done
        for name, mean in (
            ("prompt_tokens_histogram", 300.0),
            ("generation_tokens_histogram", 30.0),
        ):
            yield f"sglang:{name}_sum", first, at, mean * done
            yield f"sglang:{name}_count", first, at, done
        yield from histogram("sglang:time_to_first_token_seconds", first, at, done, 0.3)
        yield from histogram("sglang:request_time_per_output_token_seconds", first, at, done, 0.2)
        old = labels("old", "old-0")
        for name, mark, moment, value in engine(old, at, done):
            renamed = name.replace("kv_cache_usage_perc", "gpu_cache_usage_perc").replace(
                "vllm:request_time_per_output", "vllm:time_per_output"
            )
            yield renamed, mark, moment, value
