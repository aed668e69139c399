"""The table of the metric contract: every quantity, its names by engine, its use and its trap.

Sources: vLLM v1/metrics/loggers.py (V1 names), vLLM's list of removed names, SGLang's
metrics_collector.py, the Gateway API inference extension's metrics, kube-state-metrics' docs/metrics.
"""

from models.contract import Kind, Quantity, Series

V1 = "vLLM V1"
OLD = "vLLM before V1"
SGLANG = "SGLang"
GATEWAY = "gateway"
KSM = "kube-state-metrics"
RANK = ("engine",)  # vLLM: one per data-parallel rank
DP = ("dp_rank",)  # SGLang repeats every gauge per tensor-parallel rank: tp_rank is left out
TTFT_REMEDY = "vLLM: do not set --disable-log-stats; SGLang: --enable-metrics"

COMPLETIONS = Quantity(
    "completions",
    Kind.COUNTER,
    "requests",
    True,
    "requests that ended; with the change of concurrency it gives arrivals",
    "neither load nor latency can be learned",
    "scrape the engine's /metrics (a PodMonitor); SGLang needs --enable-metrics",
    (
        Series("vllm:request_success_total", V1, (*RANK, "finished_reason")),
        Series("sglang:num_requests_total", SGLANG, DP),
    ),
)
REJECTIONS = Quantity(
    "rejections",
    Kind.COUNTER,
    "requests",
    False,
    "requests refused before the queue: demand all the same",
    "demand that was shed is not seen",
    "a recent vLLM (0.32 has it); the gateway counts them as arrivals",
    (Series("vllm:admission_rejections_total", V1, (*RANK, "reason")),),
)
RUNNING = Quantity(
    "running",
    Kind.GAUGE,
    "requests",
    True,
    "requests in execution",
    "arrivals cannot be rebuilt, and there is no reactive signal",
    TTFT_REMEDY,
    (
        Series("vllm:num_requests_running", V1, RANK),
        Series("sglang:num_running_reqs", SGLANG, DP),
    ),
)
WAITING = Quantity(
    "waiting",
    Kind.GAUGE,
    "requests",
    True,
    "requests that wait in the engine",
    "arrivals cannot be rebuilt in saturation, and queues are not seen",
    TTFT_REMEDY,
    (
        Series("vllm:num_requests_waiting", V1, RANK),
        Series("sglang:num_queue_reqs", SGLANG, DP),
    ),
)
INPUT_TOKENS = Quantity(
    "input_tokens",
    Kind.HISTOGRAM,
    "tokens a request",
    True,
    "mean prompt length of requests that ended",
    "requests cannot be sized",
    TTFT_REMEDY,
    (
        Series("vllm:request_prompt_tokens", V1, RANK),
        Series("sglang:prompt_tokens_histogram", SGLANG, DP),
    ),
)
OUTPUT_TOKENS = Quantity(
    "output_tokens",
    Kind.HISTOGRAM,
    "tokens a request",
    True,
    "mean length of answers that ended",
    "requests cannot be sized",
    TTFT_REMEDY,
    (
        Series("vllm:request_generation_tokens", V1, RANK),
        Series("sglang:generation_tokens_histogram", SGLANG, DP),
    ),
)
TTFT = Quantity(
    "ttft",
    Kind.HISTOGRAM,
    "seconds",
    True,
    "time to the first token",
    "a TTFT target can be neither checked nor learned",
    TTFT_REMEDY,
    (
        Series("vllm:time_to_first_token_seconds", V1, RANK),
        Series("sglang:time_to_first_token_seconds", SGLANG, (*DP, "is_streaming")),
    ),
)
TPOT = Quantity(
    "tpot",
    Kind.HISTOGRAM,
    "seconds a token",
    True,
    "mean time per output token of a request",
    "a TPOT target can be neither checked nor learned",
    "a recent vLLM (0.32 has it); SGLang: --enable-metrics",
    (
        Series("vllm:request_time_per_output_token_seconds", V1, RANK),
        Series("sglang:request_time_per_output_token_seconds", SGLANG, (*DP, "is_streaming")),
        Series(
            "vllm:time_per_output_token_seconds",
            OLD,
            RANK,
            "a sample per token, not per request: its quantiles are those of single gaps",
        ),
    ),
)
KV_USAGE = Quantity(
    "kv_usage",
    Kind.GAUGE,
    "ratio 0 to 1",
    False,
    "share of the KV cache in use",
    "the latency model has no sign of memory pressure",
    TTFT_REMEDY,
    (
        Series("vllm:kv_cache_usage_perc", V1, RANK),
        Series("vllm:gpu_cache_usage_perc", OLD, RANK),
        Series("sglang:token_usage", SGLANG, DP),
    ),
)
PREFIX_QUERIES = Quantity(
    "prefix_queries",
    Kind.COUNTER,
    "tokens",
    False,
    "tokens looked up in the prefix cache",
    "prefix hits are unknown: prompts count in full",
    "vLLM: prefix caching is on by default",
    (
        Series("vllm:prefix_cache_queries_total", V1, RANK),
        Series("vllm:gpu_prefix_cache_queries_total", OLD, RANK),
        Series("sglang:prompt_tokens_total", SGLANG, DP),
    ),
)
PREFIX_HITS = Quantity(
    "prefix_hits",
    Kind.COUNTER,
    "tokens",
    False,
    "tokens found in the prefix cache",
    "prefix hits are unknown: prompts count in full",
    "vLLM: prefix caching is on by default",
    (
        Series("vllm:prefix_cache_hits_total", V1, RANK),
        Series("vllm:gpu_prefix_cache_hits_total", OLD, RANK),
        Series("sglang:cached_tokens_total", SGLANG, (*DP, "cache_source")),
    ),
)
GATEWAY_REQUESTS = Quantity(
    "gateway_requests",
    Kind.COUNTER,
    "requests",
    False,
    "arrivals, counted before any queue",
    "arrivals are rebuilt from completions and the change of concurrency",
    "scrape the endpoint picker of the Gateway API inference extension",
    (
        Series("llm_d_epp_request_total", GATEWAY, ("priority", "fairness_id", "model_name")),
        Series(
            "inference_objective_request_total",
            GATEWAY,
            ("priority", "fairness_id", "model_name"),
            "the name before llm-d took the endpoint picker over",
        ),
    ),
)
GATEWAY_QUEUE = Quantity(
    "gateway_queue",
    Kind.GAUGE,
    "requests",
    False,
    "requests that the gateway holds back: they wait as much as those in the engine",
    "a queue in the gateway is not seen, nor is demand for a service without replicas",
    "scrape the endpoint picker; it queues only with its flow control on",
    (
        Series(
            "llm_d_epp_flow_control_queue_size",
            GATEWAY,
            ("inference_pool", "priority", "fairness_id", "model_name"),
        ),
        Series(
            "inference_extension_flow_control_queue_size",
            GATEWAY,
            ("inference_pool", "priority", "fairness_id", "model_name"),
            "the name before llm-d took the endpoint picker over",
        ),
    ),
)
POD_CREATED = Quantity(
    "pod_created",
    Kind.INFO,
    "seconds since the epoch",
    False,
    "when each replica was asked for",
    "start-up times are not learned: the policy's default holds",
    "install kube-state-metrics",
    (Series("kube_pod_created", KSM),),
)
POD_READY = Quantity(
    "pod_ready",
    Kind.INFO,
    "seconds since the epoch",
    False,
    "when each replica became ready",
    "start-up times are not learned: the policy's default holds",
    "a recent kube-state-metrics, with pod metrics on",
    (Series("kube_pod_status_ready_time", KSM),),
)
POD_OWNER = Quantity(
    "pod_owner",
    Kind.INFO,
    "labels",
    False,
    "which workload a pod that never became ready belongs to",
    "starts that failed before the first scrape are not counted as censored",
    "install kube-state-metrics",
    (Series("kube_pod_owner", KSM),),
)

ENGINE = (
    COMPLETIONS,
    REJECTIONS,
    RUNNING,
    WAITING,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    TTFT,
    TPOT,
    KV_USAGE,
    PREFIX_QUERIES,
    PREFIX_HITS,
)
AT_GATEWAY = (GATEWAY_REQUESTS, GATEWAY_QUEUE)
KUBERNETES = (POD_CREATED, POD_READY, POD_OWNER)
QUANTITIES = (*ENGINE, *AT_GATEWAY, *KUBERNETES)
