"""The queries that history and the live reader share: one per column, for all services together."""

from dataclasses import dataclass
from enum import StrEnum

from models import contract_series as of
from models.contract import (
    Labels,
    Quantity,
    Series,
    bucket_rates,
    duration,
    most_samples,
    native_quantile,
    once,
    quantile,
    ratio,
    select,
    serving_pods,
    total,
)

SCRAPE_WINDOW_SECONDS = 600.0
LEVELS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def level_queries(
    labels: Labels, window_seconds: float, scrape_seconds: float | None
) -> dict[str, str]:
    """Return PromQL by column name for all but latency: rates per second, means, counts.

    Every answer has a row per (namespace, service, variant). `scrape_seconds` None: not known.
    """
    w = window_seconds
    sums = ("_sum", "_count")
    return {
        "completion_rate_rps": total("rate", of.COMPLETIONS, labels, w),
        "rejection_rate_rps": total("rate", of.REJECTIONS, labels, w),
        "running_change": total("delta", of.RUNNING, labels, w),
        "waiting_change": total("delta", of.WAITING, labels, w),
        "running": total("avg_over_time", of.RUNNING, labels, w),
        "waiting": total("avg_over_time", of.WAITING, labels, w),
        "isl_tokens": ratio(of.INPUT_TOKENS, of.INPUT_TOKENS, labels, w, suffixes=sums),
        "osl_tokens": ratio(of.OUTPUT_TOKENS, of.OUTPUT_TOKENS, labels, w, suffixes=sums),
        "kv_cache_usage_ratio": total("avg_over_time", of.KV_USAGE, labels, w, aggregate="avg"),
        "prefix_cache_hit_ratio": ratio(of.PREFIX_HITS, of.PREFIX_QUERIES, labels, w),
        "samples": most_samples(of.RUNNING, labels, w),
        "ready_replicas": serving_pods(of.RUNNING, labels, w, scrape_seconds),
    }


def serving_queries(labels: Labels, window_seconds: float, scrape_seconds: float) -> dict[str, str]:
    """Return a query per column, levels and quantiles: what recording rules record.

    History reads the same numbers more cheaply, in the pieces of `READINGS`.
    """
    queries = level_queries(labels, window_seconds, scrape_seconds)
    for quantity in (of.TTFT, of.TPOT):
        for suffix, level in LEVELS:
            name = f"{quantity.name}_{suffix}_seconds"
            queries[name] = quantile(level, quantity, labels, window_seconds)
    return queries


class Fold(StrEnum):
    """How the numbers of engine processes make one of a (namespace, service, variant)."""

    SUM = "sum"  # of the maximum over duplicates, as `models.contract.total`
    MEAN = "avg"  # of the same
    SCRAPES = "scrapes"  # `samples` and `ready_replicas` from scrapes per pod
    BUCKETS = "buckets"  # sum per bound, then quantiles and shares


@dataclass(frozen=True, slots=True)
class Reading:
    """A number per engine process that history asks for; columns are made of one or two of them."""

    name: str
    function: str
    quantity: Quantity
    fold: Fold = Fold.SUM
    suffix: str = ""

    @property
    def keep(self) -> tuple[str, ...]:
        """Labels of any alias that tell processes of a pod apart."""
        return tuple(dict.fromkeys(x for s in self.quantity.series for x in s.identity))


READINGS = (
    Reading("completion_rate_rps", "rate", of.COMPLETIONS),
    Reading("rejection_rate_rps", "rate", of.REJECTIONS),
    Reading("running_change", "delta", of.RUNNING),
    Reading("waiting_change", "delta", of.WAITING),
    Reading("running", "avg_over_time", of.RUNNING),
    Reading("waiting", "avg_over_time", of.WAITING),
    Reading("isl_sum", "rate", of.INPUT_TOKENS, suffix="_sum"),
    Reading("isl_count", "rate", of.INPUT_TOKENS, suffix="_count"),
    Reading("osl_sum", "rate", of.OUTPUT_TOKENS, suffix="_sum"),
    Reading("osl_count", "rate", of.OUTPUT_TOKENS, suffix="_count"),
    Reading("kv_cache_usage_ratio", "avg_over_time", of.KV_USAGE, Fold.MEAN),
    Reading("prefix_hits", "rate", of.PREFIX_HITS),
    Reading("prefix_queries", "rate", of.PREFIX_QUERIES),
    Reading("scrapes", "count_over_time", of.RUNNING, Fold.SCRAPES),
    Reading("ttft", "rate", of.TTFT, Fold.BUCKETS, "_bucket"),
    Reading("tpot", "rate", of.TPOT, Fold.BUCKETS, "_bucket"),
)
QUOTIENTS = {  # column: (above, below)
    "isl_tokens": ("isl_sum", "isl_count"),
    "osl_tokens": ("osl_sum", "osl_count"),
    "prefix_cache_hit_ratio": ("prefix_hits", "prefix_queries"),
}


def reading_query(
    reading: Reading,
    series: Series,
    labels: Labels,
    window_seconds: float,
    *,
    summed: bool,
    matcher: str = "",
) -> str:
    """Return what to ask for one alias of a reading; adding up again what the server did is harmless.

    A server's aggregation of one sample costs several times its rate and its transfer, so that rates
    are asked for per process (`summed` false) unless a service has many of them.
    """
    name = series.name + reading.suffix
    by = ", ".join(labels.group)
    plain = f"{reading.function}({select(name, labels, matcher)}[{duration(window_seconds)}])"
    if not summed:
        return plain
    if reading.fold is Fold.BUCKETS:
        return bucket_rates(series, labels, window_seconds, matcher)
    if reading.fold is Fold.SCRAPES:
        return f"max by ({by}, {labels.pod}, instance) ({plain})"
    inner = once(reading.function, name, series, labels, window_seconds)
    return f"{reading.fold.value} by ({by}) ({inner})"


def native_queries(
    quantities: tuple[str, ...], labels: Labels, window_seconds: float
) -> dict[str, str]:
    """Return columns from native histograms, for the quantities that have any (Prometheus 2.40)."""
    out = {}
    for quantity in (of.TTFT, of.TPOT):
        for suffix, level in LEVELS if quantity.name in quantities else ():
            name = f"{quantity.name}_{suffix}_seconds"
            out[name] = native_quantile(level, quantity, labels, window_seconds)
    for column, quantity in (("isl_tokens", of.INPUT_TOKENS), ("osl_tokens", of.OUTPUT_TOKENS)):
        if quantity.name in quantities:
            rates = [_native_rate(s, labels, window_seconds) for s in quantity.series]
            out[column] = " or ".join(f"histogram_sum({r}) / histogram_count({r})" for r in rates)
    return out


def native_rates(quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return the rate of a native histogram by row; nothing where a server has none."""
    return " or ".join(_native_rate(s, labels, window_seconds) for s in quantity.series)


def _native_rate(series: Series, labels: Labels, window_seconds: float) -> str:
    by = ", ".join(labels.group)
    return f"sum by ({by}) (rate({select(series.name, labels)}[{duration(window_seconds)}]))"


def native_names_query(labels: Labels, window_seconds: float) -> str:
    """Return which histograms have native series in the window: a row per `__name__`."""
    histograms = (of.TTFT, of.TPOT, of.INPUT_TOKENS, of.OUTPUT_TOKENS)
    names = "|".join(s.name for q in histograms for s in q.series)
    inside = ",".join(x for x in (f'__name__=~"{names}"', labels.selector) if x)
    return f"count by (__name__) (last_over_time({{{inside}}}[{duration(window_seconds)}]))"


def engines_query(labels: Labels) -> str:
    """Return how many engine processes there are."""
    return f"count({' or '.join(select(s.name, labels) for s in of.RUNNING.series)})"


def growth_query(quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return how much each bucket grew over all services: a row per `le` and alias."""
    window = duration(window_seconds)
    return " or ".join(
        f"label_replace(sum by (le) (increase({select(s.name + '_bucket', labels)}[{window}])), "
        f'"alias", "{place}", "", "")'
        for place, s in enumerate(quantity.series)
    )


def live_queries(labels: Labels, window_seconds: float, scrape_seconds: float) -> dict[str, str]:
    """Return the queries of one tick: the same levels; buckets once instead of a query a quantile.

    Aliases have buckets of their own and `or` would mix them: a query each, `ttft_buckets:0` first.
    Native histograms come whole: `models.contract_api` makes rows of buckets, sum and count of them.
    """
    return {
        **level_queries(labels, window_seconds, scrape_seconds),
        **{
            f"{q.name}_buckets:{place}": bucket_rates(s, labels, window_seconds)
            for q in (of.TTFT, of.TPOT)
            for place, s in enumerate(q.series)
        },
        **{
            name: native_rates(q, labels, window_seconds)
            for name, q in (
                ("ttft_buckets:native", of.TTFT),
                ("tpot_buckets:native", of.TPOT),
                ("isl_tokens:native", of.INPUT_TOKENS),
                ("osl_tokens:native", of.OUTPUT_TOKENS),
            )
        },
        "age_seconds": age_query(labels),
        "gateway": gateway_query(labels, window_seconds),
        "gateway_queue": gateway_queue_query(labels, window_seconds),
        "gateway_held": gateway_held_query(labels, window_seconds),
        "draining": draining_query(labels, window_seconds),
        **replica_queries(),
    }


def load_queries(labels: Labels, window_seconds: float) -> dict[str, str]:
    """Return what tells the requests that all services hold now, and the pods that serve them."""
    levels = level_queries(labels, window_seconds, None)  # the scaler is not told it
    names = ("running", "waiting", "ready_replicas")
    queue = gateway_queue_query(labels, window_seconds)
    return {**{name: levels[name] for name in names}, "gateway_queue": queue}


def age_query(labels: Labels) -> str:
    """Return how old the newest sample of each service is, at most five minutes."""
    by = ", ".join(labels.group)
    names = [f"max by ({by}) (timestamp({select(s.name, labels)}))" for s in of.RUNNING.series]
    return f"time() - ({' or '.join(names)})"


def replica_queries() -> dict[str, str]:
    """Return replica counts of Deployments and StatefulSets from kube-state-metrics."""
    names = {
        "desired": ("kube_deployment_spec_replicas", "kube_statefulset_replicas"),
        "ready": (
            "kube_deployment_status_replicas_ready",
            "kube_statefulset_status_replicas_ready",
        ),
        "present": ("kube_deployment_status_replicas", "kube_statefulset_status_replicas"),
    }
    return {
        f"replicas_{what}": f"max by (namespace, deployment) ({a}) or max by (namespace, statefulset) ({b})"
        for what, (a, b) in names.items()
    }


def gateway_query(labels: Labels, window_seconds: float) -> str:
    """Return arrivals per second by the gateway's namespace and model."""
    return _at_gateway("rate", of.GATEWAY_REQUESTS, labels, window_seconds)


def gateway_queue_query(labels: Labels, window_seconds: float) -> str:
    """Return the requests that the gateway held, on average, by its namespace and model."""
    return _at_gateway("avg_over_time", of.GATEWAY_QUEUE, labels, window_seconds)


def gateway_held_query(labels: Labels, window_seconds: float) -> str:
    """Return by how many requests the gateway's queue grew: they arrived, and no engine knows of them."""
    return _at_gateway("delta", of.GATEWAY_QUEUE, labels, window_seconds)


def _at_gateway(function: str, quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    by = ", ".join(x for x in (labels.gateway_namespace, labels.gateway_model_name) if x)
    parts = []
    for s in quantity.series:
        keep = ", ".join((by, "pod", "instance", *s.identity))
        value = f"{function}({select(s.name, labels)}[{duration(window_seconds)}])"
        parts.append(f"sum by ({by}) (max by ({keep}) ({value}))")
    return " or ".join(parts)


def models_query(labels: Labels, window_seconds: float) -> str:
    """Return which engine serves which model: a row per (namespace, service, variant, pod, model)."""
    by = ", ".join(dict.fromkeys((*labels.group, labels.pod, labels.model_name)))
    parts = [
        f"count by ({by}) (count_over_time({select(s.name, labels)}[{duration(window_seconds)}]))"
        for s in of.RUNNING.series
    ]
    return " or ".join(parts)


def pods_query(labels: Labels, window_seconds: float) -> str:
    """Return which pod belongs to which (namespace, service, variant) inside the window."""
    by = ", ".join((*labels.group, labels.pod))
    parts = [
        f"count by ({by}) (count_over_time({select(s.name, labels)}[{duration(window_seconds)}]))"
        for s in of.RUNNING.series
    ]
    return " or ".join(parts)


def draining_query(labels: Labels, window_seconds: float) -> str:
    """Return the pods of each row that are being deleted: no row where none is, or none is known.

    kube-state-metrics has kube_pod_deletion_timestamp from the request to delete until the pod is gone.
    """
    deleted = "kube_pod_deletion_timestamp"
    for own, theirs in ((labels.pod, "pod"), (labels.namespace, "namespace")):
        if own not in (None, theirs):
            deleted = f'label_replace({deleted}, "{own}", "$1", "{theirs}", "(.+)")'
    on = ", ".join(x for x in (labels.namespace, labels.pod) if x)
    pods = pods_query(labels, window_seconds)
    return f"count by ({', '.join(labels.group)}) (({pods}) and on ({on}) {deleted})"


def startup_queries(window_seconds: float) -> dict[str, str]:
    """Return instants of each pod from kube-state-metrics: a row per (namespace, pod, uid).

    The first ready time counts: a pod that flaps does not start anew. `seen` is the last scrape.
    """
    w = duration(window_seconds)
    by = "namespace, pod, uid"
    return {
        "created": f"min by ({by}) (min_over_time(kube_pod_created[{w}]))",
        "ready": f"min by ({by}) (min_over_time(kube_pod_status_ready_time[{w}]))",
        "deleted": f"max by ({by}) (max_over_time(kube_pod_deletion_timestamp[{w}]))",
        "seen": f"max by ({by}) (max_over_time(timestamp(kube_pod_created)[{w}:60s]))",
        "owner": f"max by ({by}, owner_kind, owner_name) (max_over_time(kube_pod_owner[{w}]))",
    }


def scrape_query(labels: Labels, window_seconds: float = SCRAPE_WINDOW_SECONDS) -> str:
    """Return scrapes in the window of the most frequently scraped engine, if any."""
    names = " or ".join(
        f"max(count_over_time({select(s.name, labels)}[{duration(window_seconds)}]))"
        for s in of.RUNNING.series
    )
    return f"max({names})"


def bounds_query(quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return the bucket bounds in use: a row per `le`."""
    window = duration(window_seconds)
    names = [
        f"count by (le) (last_over_time({select(f'{s.name}_bucket', labels)}[{window}]))"
        for s in quantity.series
    ]
    return " or ".join(names)
