"""The metric contract: PromQL by hand, labels, and rules that every entry keeps."""

import re

import pytest

from models import contract_series as of
from models.contract import (
    ContractError,
    Kind,
    Labels,
    full_scrapes,
    once,
    parse_labels,
    quantile,
    serving_pods,
    total,
)
from models.contract_queries import gateway_query, level_queries, live_queries, serving_queries

NO_LABELS = Labels(namespace=None, variant=None)


def test_a_rate_over_all_services_by_hand() -> None:
    assert total("rate", of.REJECTIONS, Labels(), 75.0) == (
        "sum by (namespace, service, variant) (max by (namespace, service, variant, pod, instance, "
        "engine, reason) (rate(vllm:admission_rejections_total[75s])))"
    )


def test_aliases_are_joined_after_the_sum_so_that_two_never_add_up() -> None:
    query = total("avg_over_time", of.KV_USAGE, NO_LABELS, 60.0, aggregate="avg")
    assert query.count(" or ") == 2
    assert all(part.startswith("avg by (service) (") for part in query.split(" or "))


def test_tensor_parallel_ranks_of_sglang_are_one() -> None:
    series = next(s for s in of.RUNNING.series if s.engine == "SGLang")
    assert "tp_rank" not in once("", series.name, series, Labels(), 60.0)
    assert "dp_rank" in once("", series.name, series, Labels(), 60.0)


def test_a_selector_reaches_every_engine_series() -> None:
    labels = Labels(selector='cluster="eu"')
    for name, query in serving_queries(labels, 60.0, 15.0).items():
        series = re.findall(r"(?:vllm|sglang):\w+", query)
        assert query.count('cluster="eu"') == len(series), name


def test_quantile() -> None:
    assert quantile(0.95, of.TTFT, NO_LABELS, 60.0).startswith(
        "histogram_quantile(0.95, sum by (service, le) (rate(vllm:time_to_first_token_seconds_bucket[60s])))"
    )


@pytest.mark.parametrize(
    ("window", "scrape", "full"),
    [
        (38.0, 15.0, 2),  # 2.53: some pods have three
        (75.0, 15.0, 5),
        (150.0, 60.0, 2),
        (15.0, 15.0, 1),
        (10.0, 15.0, 1),  # less than one scrape: what has any is there
    ],
)
def test_scrapes_that_every_window_holds(window: float, scrape: float, full: int) -> None:
    assert full_scrapes(window, scrape) == full


def test_serving_pods_by_hand() -> None:
    pods = "max by (service, pod, instance) (count_over_time(vllm:num_requests_running[38s]))"
    most = f"max by (service) ({pods})"
    known = serving_pods(of.RUNNING, NO_LABELS, 38.0, 15.0).split(" or ")
    assert known[0] == (
        f"sum by (service) (clamp_max({pods} / on (service) group_left () clamp_max({most}, 2), 1))"
    )
    assert known[1] == known[0].replace("vllm:num_requests_running", "sglang:num_running_reqs")
    unknown = serving_pods(of.RUNNING, NO_LABELS, 38.0, None).split(" or ")
    assert unknown[0] == (
        f"sum by (service) (clamp_max({pods} / on (service) group_left () clamp_min({most} - 1, 1), 1))"
    )


def test_history_and_ticks_share_their_definitions() -> None:
    by = (Labels(), 75.0, 15.0)
    history, live = serving_queries(*by), live_queries(*by)
    for name, query in level_queries(*by).items():
        assert history[name] == live[name] == query


def test_the_gateway_is_asked_by_its_own_labels() -> None:
    labels = Labels(gateway_namespace=None, gateway_model_name="model_name")
    assert gateway_query(labels, 60.0).startswith("sum by (model_name) (")


@pytest.mark.parametrize("quantity", of.QUANTITIES, ids=lambda q: q.name)
def test_every_quantity_says_what_it_is_for(quantity: "of.Quantity") -> None:
    assert quantity.purpose
    assert quantity.without
    assert quantity.remedy
    names = [s.name for s in quantity.series]
    assert len(set(names)) == len(names)
    for name in names:
        assert (quantity.kind is Kind.COUNTER) == name.endswith("_total")
        assert not name.endswith(("_bucket", "_sum", "_count"))


def test_rows_of_an_answer() -> None:
    labels = Labels()
    assert labels.row({"namespace": "a", "service": "b", "variant": "c"}) == ("a/b", "c")
    assert labels.row({"namespace": "a", "service": "b"}) == ("a/b", "default")
    assert labels.row({"service": "b"}) is None
    assert labels.row({"namespace": "a"}) is None
    assert NO_LABELS.row({"service": "b"}) == ("b", "default")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"servce": "x"}, "labels.servce is unknown; allowed: service"),
        ({"service": 3}, "labels.service is 3; allowed: text"),
        ({"service": None}, "labels.service is None"),
        ({"pod": "a b"}, "the name of a label"),
    ],
)
def test_a_mapping_that_is_wrong(content: dict[str, object], says: str) -> None:
    with pytest.raises(ContractError, match=re.escape(says)):
        parse_labels(content, "labels.yaml")


def test_a_mapping() -> None:
    labels = parse_labels({"service": "app", "variant": None, "selector": '{job="vllm"}'}, "here")
    assert labels == Labels(service="app", variant=None, selector='job="vllm"')
