"""The metric contract: which series give a quantity, and the PromQL that reads it for all services.

Ingest, the online reader and lint build every query here, so that models learn from the very definition
that decisions are made with (docs/design/008-metric-contract.md). Text in, text out: nothing is fetched.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
DEFAULT_VARIANT = "default"  # of a service whose series carry no variant


class ContractError(ValueError):
    """A label mapping that cannot be used; the message says where, what and what is allowed."""


class Kind(StrEnum):
    """Type of a series; a histogram has _bucket, _sum and _count."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"  # a gauge that carries its facts in labels or as a timestamp


@dataclass(frozen=True, slots=True)
class Series:
    """One name under which an engine exposes a quantity (without _bucket, _sum, _count).

    `identity` are the labels that tell apart parts of one pod which must be added up; labels that
    only repeat the same value (tensor-parallel ranks) are left out. `caveat` says what differs.
    """

    name: str
    engine: str
    identity: tuple[str, ...] = ()
    caveat: str = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is read: unit, use, what is lost without it and the setting that gives it."""

    name: str
    kind: Kind
    unit: str
    required: bool
    purpose: str
    without: str
    remedy: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """Which label names what. None: the series have no such label.

    `selector` is added to every engine's series, such as `cluster="eu"`; `model_name` joins engines to
    the gateway, whose own labels are `gateway_namespace` and `gateway_model_name`.
    """

    service: str = "service"
    namespace: str | None = "namespace"
    variant: str | None = "variant"
    pod: str = "pod"
    model_name: str = "model_name"
    gateway_namespace: str | None = "namespace"
    gateway_model_name: str = "target_model_name"
    selector: str = ""

    @property
    def group(self) -> tuple[str, ...]:
        """Labels that make a row: namespace, service, variant, as far as there are any."""
        return tuple(x for x in (self.namespace, self.service, self.variant) if x is not None)

    def row(self, metric: Mapping[str, str]) -> tuple[str, str] | None:
        """Return (service, variant) of an answer's labels; None where one of the mapping is absent."""
        service = metric.get(self.service, "")
        namespace = metric.get(self.namespace, "") if self.namespace else None
        if not service or namespace == "":
            return None
        variant = metric.get(self.variant, "") if self.variant else ""
        name = service if namespace is None else f"{namespace}/{service}"
        return name, variant or DEFAULT_VARIANT


def parse_labels(content: Mapping[str, Any], where: str) -> Labels:
    """Return the mapping in a configuration's `labels`; ContractError names key, value, allowed."""
    allowed = {f.name: f for f in fields(Labels)}
    optional = {"namespace", "variant", "gateway_namespace"}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in allowed:
            raise ContractError(f"{where}: labels.{key} is unknown; allowed: {', '.join(allowed)}")
        if value is None and key in optional:
            values[key] = None
        elif not isinstance(value, str):
            raise ContractError(f"{where}: labels.{key} is {value!r}; allowed: text")
        elif key != "selector" and not LABEL_NAME.fullmatch(value):
            raise ContractError(
                f"{where}: labels.{key} is {value!r}; allowed: the name of a label, such as {key}"
            )
        else:
            values[key] = value.strip("{} ") if key == "selector" else value
    return Labels(**values)


def duration(seconds: float) -> str:
    """Write a duration for PromQL; whole seconds, at least one."""
    return f"{max(1, round(seconds))}s"


def select(name: str, labels: Labels, *matchers: str) -> str:
    """Return `name{...}` with the mapping's selector and further matchers."""
    inside = ",".join(x for x in (labels.selector, *matchers) if x)
    return f"{name}{{{inside}}}" if inside else name


def once(function: str, name: str, series: Series, labels: Labels, window_seconds: float) -> str:
    """Return the value of each engine process, duplicates removed.

    The maximum over (group, pod, instance, identity) makes one of a target that is scraped by two
    jobs or by two Prometheus replicas.
    """
    keep = ", ".join((*labels.group, labels.pod, "instance", *series.identity))
    value = (
        select(name, labels)
        if not function
        else (f"{function}({select(name, labels)}[{duration(window_seconds)}])")
    )
    return f"max by ({keep}) ({value})"


def total(
    function: str,
    quantity: Quantity,
    labels: Labels,
    window_seconds: float,
    *,
    suffix: str = "",
    aggregate: str = "sum",
) -> str:
    """Return the quantity per (namespace, service, variant): the first alias that a service has."""
    by = ", ".join(labels.group)
    parts = [
        f"{aggregate} by ({by}) ({once(function, s.name + suffix, s, labels, window_seconds)})"
        for s in quantity.series
    ]
    return " or ".join(parts)


def ratio(
    above: Quantity,
    below: Quantity,
    labels: Labels,
    window_seconds: float,
    *,
    suffixes: tuple[str, str] = ("", ""),
) -> str:
    """Return increase of one counter over that of another; NaN where the lower did not move."""
    top = total("rate", above, labels, window_seconds, suffix=suffixes[0])
    bottom = total("rate", below, labels, window_seconds, suffix=suffixes[1])
    return f"({top}) / ({bottom})"


def bucket_rates(series: Series, labels: Labels, window_seconds: float, matcher: str = "") -> str:
    """Return the rate of every bucket per service, a row per `le`.

    Without the maximum that removes duplicates: there are twenty times as many buckets as other
    series, and a quantile or a share stays the same when every pod counts twice. `matcher` may leave
    out bounds (`models.histograms.bounds_with_mass`).
    """
    by = ", ".join((*labels.group, "le"))
    bucket = select(f"{series.name}_bucket", labels, matcher)
    return f"sum by ({by}) (rate({bucket}[{duration(window_seconds)}]))"


def quantile(
    level: float, quantity: Quantity, labels: Labels, window_seconds: float, matcher: str = ""
) -> str:
    """Return a quantile over all pods of a service from classic buckets.

    The error is that of the bucket in which the quantile lies: `models.histograms`.
    """
    return " or ".join(
        f"histogram_quantile({level:g}, {bucket_rates(s, labels, window_seconds, matcher)})"
        for s in quantity.series
    )


def any_of(label: str, values: Sequence[str]) -> str:
    """Return the matcher `label=~"a|b"` with values taken literally."""
    return f'{label}=~"' + "|".join(re.escape(v).replace("\\", "\\\\") for v in values) + '"'


def native_quantile(level: float, quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return the same from native histograms (Prometheus 2.40 and later, feature flag).

    A maximum of histograms does not exist, so duplicates count twice: the quantile stays the same.
    """
    by = ", ".join(labels.group)
    window = duration(window_seconds)
    parts = [
        f"histogram_quantile({level:g}, sum by ({by}) (rate({select(s.name, labels)}[{window}])))"
        for s in quantity.series
    ]
    return " or ".join(parts)


def most_samples(quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return how many scrapes the most scraped pod of a service has in the window."""
    by = ", ".join(labels.group)
    window = duration(window_seconds)
    return " or ".join(
        f"max by ({by}) (count_over_time({select(s.name, labels)}[{window}]))"
        for s in quantity.series
    )


def full_scrapes(window_seconds: float, scrape_seconds: float) -> int:
    """Return how many scrapes every window holds of a pod that is there all through, at least one.

    Pods are scraped at times of their own: a window that is no whole number of scrapes holds one more
    of some pods than of others.
    """
    return max(1, math.floor(window_seconds / scrape_seconds))


def serving_pods(
    quantity: Quantity, labels: Labels, window_seconds: float, scrape_seconds: float | None
) -> str:
    """Return the mean number of scraped pods over the window.

    A pod with `full_scrapes`, or as many as the most scraped pod of its service where that has fewer,
    counts as one, any other as its share of them: one that was there for half of the window counts
    half. Where the interval is not known (None), one scrape less than the most scraped is as many.
    Pods, not engine ranks inside a pod.
    """
    by = ", ".join(labels.group)
    parts = []
    for s in quantity.series:
        samples = f"count_over_time({select(s.name, labels)}[{duration(window_seconds)}])"
        pods = f"max by ({by}, {labels.pod}, instance) ({samples})"
        most = f"max by ({by}) ({pods})"
        full = (
            f"clamp_min({most} - 1, 1)"
            if scrape_seconds is None
            else f"clamp_max({most}, {full_scrapes(window_seconds, scrape_seconds)})"
        )
        shares = f"clamp_max({pods} / on ({by}) group_left () {full}, 1)"
        parts.append(f"sum by ({by}) ({shares})")
    return " or ".join(parts)
