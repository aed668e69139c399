"""Which OTLP metrics carry which signal, and which attributes tell one source from another.

Names arrive in several spellings: dots (the conventions), colons (the engines), underscores (after a
collector has read a Prometheus page), with or without `_total` and a unit. `canonical` removes the
differences. Sources: OpenTelemetry GenAI semantic conventions (gen_ai.*, seconds and {token}), vLLM
V1 and SGLang metric pages, the Gateway API inference extension's endpoint picker.
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Signal:
    """What a metric means to us. `engine`: who reports it is a replica, so it counts as one."""

    name: str
    kind: Kind
    engine: bool = True


RUNNING = Signal("running", "gauge")
WAITING = Signal("waiting", "gauge")
KV_USAGE = Signal("kv_usage", "gauge")
SUCCESS = Signal("success", "counter")
REJECTED = Signal("rejected", "counter")
PROMPT_TOKENS = Signal("prompt_tokens", "counter")
GENERATION_TOKENS = Signal("generation_tokens", "counter")
PREFIX_QUERIES = Signal("prefix_queries", "counter")
PREFIX_HITS = Signal("prefix_hits", "counter")
TTFT = Signal("ttft", "histogram")
TPOT = Signal("tpot", "histogram")
DURATION = Signal("duration", "histogram")
INPUT_LENGTH = Signal("input_length", "histogram")
OUTPUT_LENGTH = Signal("output_length", "histogram")
# reported by who calls the engine: a client application, the gateway
CLIENT_INPUT = Signal("client_input", "histogram", engine=False)
CLIENT_OUTPUT = Signal("client_output", "histogram", engine=False)
GATEWAY_ARRIVALS = Signal("gateway_arrivals", "counter", engine=False)
GATEWAY_QUEUE = Signal("gateway_queue", "gauge", engine=False)
# from trace spans: exact per request, but silent while nothing is asked
SPAN_ARRIVALS = Signal("span_arrivals", "counter", engine=False)
SPAN_FINISHED = Signal("span_finished", "counter", engine=False)
SPAN_INPUT = Signal("span_input", "counter", engine=False)
SPAN_OUTPUT = Signal("span_output", "counter", engine=False)
SPAN_TTFT = Signal("span_ttft", "histogram", engine=False)
SPAN_TPOT = Signal("span_tpot", "histogram", engine=False)

USAGE_METRIC = "gen_ai_client_token_usage"  # one metric, two signals: gen_ai.token.type decides
TYPE_ATTRIBUTE = "gen_ai_token_type"
_USAGE_SIGNALS = {"input": CLIENT_INPUT, "output": CLIENT_OUTPUT}

_BY_NAME = {
    # vLLM V1, and the names before it
    "vllm_num_requests_running": RUNNING,
    "vllm_num_requests_waiting": WAITING,
    "vllm_kv_cache_usage_perc": KV_USAGE,
    "vllm_gpu_cache_usage_perc": KV_USAGE,
    "vllm_request_success": SUCCESS,
    "vllm_admission_rejections": REJECTED,
    "vllm_prompt_tokens": PROMPT_TOKENS,
    "vllm_generation_tokens": GENERATION_TOKENS,
    "vllm_prefix_cache_queries": PREFIX_QUERIES,
    "vllm_prefix_cache_hits": PREFIX_HITS,
    "vllm_gpu_prefix_cache_queries": PREFIX_QUERIES,
    "vllm_gpu_prefix_cache_hits": PREFIX_HITS,
    "vllm_time_to_first_token": TTFT,
    "vllm_request_time_per_output_token": TPOT,
    "vllm_e2e_request_latency": DURATION,
    "vllm_request_prompt_tokens": INPUT_LENGTH,
    "vllm_request_generation_tokens": OUTPUT_LENGTH,
    # SGLang
    "sglang_num_running_reqs": RUNNING,
    "sglang_num_queue_reqs": WAITING,
    "sglang_token_usage": KV_USAGE,
    "sglang_num_requests": SUCCESS,
    "sglang_prompt_tokens": PROMPT_TOKENS,
    "sglang_generation_tokens": GENERATION_TOKENS,
    "sglang_time_to_first_token": TTFT,
    "sglang_request_time_per_output_token": TPOT,
    "sglang_e2e_request_latency": DURATION,
    "sglang_prompt_tokens_histogram": INPUT_LENGTH,
    "sglang_generation_tokens_histogram": OUTPUT_LENGTH,
    # the conventions
    "gen_ai_server_time_to_first_token": TTFT,
    "gen_ai_server_time_per_output_token": TPOT,
    "gen_ai_server_request_duration": DURATION,
    # endpoint picker: every request, before any queue
    "llm_d_epp_request": GATEWAY_ARRIVALS,
    "inference_objective_request": GATEWAY_ARRIVALS,
    "inference_extension_request": GATEWAY_ARRIVALS,
    "llm_d_epp_flow_control_queue_size": GATEWAY_QUEUE,
    "inference_extension_flow_control_queue_size": GATEWAY_QUEUE,
}
SIGNALS = {
    s.name: s
    for s in (
        *_BY_NAME.values(),
        *_USAGE_SIGNALS.values(),
        *(SPAN_ARRIVALS, SPAN_FINISHED, SPAN_INPUT, SPAN_OUTPUT, SPAN_TTFT, SPAN_TPOT),
    )
}
LATENCY_SIGNALS = frozenset({TTFT, TPOT, DURATION})
# of these the columns are quantiles; of other histograms sum and count are enough
QUANTILE_SIGNALS = frozenset({TTFT, TPOT, SPAN_TTFT, SPAN_TPOT})
ENGINE_SIGNALS = tuple(s.name for s in SIGNALS.values() if s.engine)

# what tells sources apart and what a service or variant may be named after
IDENTITY_ATTRIBUTES = (
    "service.name",
    "service.namespace",
    "service.instance.id",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.start_time",
    "k8s.node.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
    # labels of a scraped page, kept as they are by a collector
    "model_name",
    "namespace",
    "pod",
    "variant",
)
_SECONDS_A_UNIT = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


def canonical(name: str) -> str:
    """Return `name` in lower case with underscores, without `_total` and the unit of seconds."""
    plain = _NOT_A_WORD.sub("_", name.lower()).strip("_")
    return plain.removesuffix("_total").removesuffix("_seconds")


def signal_of(plain_name: str, token_type: str | None) -> Signal | None:
    """Return the signal of a canonical name; None for a metric that no column needs."""
    if plain_name in (USAGE_METRIC, f"{USAGE_METRIC}_token"):
        return _USAGE_SIGNALS.get(token_type or "")
    return _BY_NAME.get(plain_name)


def unit_factor(signal: Signal, unit: str) -> float | None:
    """Return what turns the metric's unit into ours (s for latency); None for an unknown unit."""
    if signal not in LATENCY_SIGNALS:
        return 1.0
    return _SECONDS_A_UNIT.get(unit)
