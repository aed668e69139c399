"""JSON lines <-> observations: what is missing stays missing, what is wrong is named."""

import json
import math
import time
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import Observation, ServiceObservation, VariantObservation
from autoscaler.edge import wire
from autoscaler.edge.wire import WireError, observation_to_dict, parse_observation

FULL: dict[str, Any] = {
    "now_seconds": 1767571200.0,
    "interval_seconds": 15.0,
    "services": {
        "prod/chat": {
            "arrival_rate_rps": 3.2,
            "isl_tokens": 1024,
            "osl_tokens": 210.0,
            "variants": {
                "h100": {
                    "ready": 3,
                    "starting": 1,
                    "draining": 2,
                    "desired": 5,
                    "running": 41.5,
                    "waiting": 0,
                    "kv_cache_usage_ratio": 0.4,
                    "ttft_p50_seconds": 0.08,
                    "ttft_p95_seconds": 0.31,
                    "ttft_p99_seconds": 0.42,
                    "tpot_p50_seconds": 0.021,
                    "tpot_p95_seconds": 0.03,
                    "tpot_p99_seconds": 0.034,
                    "finished_requests": 47,
                    "ttft_within_slo_ratio": 1.0,
                    "tpot_within_slo_ratio": 0.99,
                    "slo_attainment_ratio": 0.98,
                }
            },
        }
    },
    "pools": {"h100-80gb": {"total_gpus": 32}},
}
SERVICE = "services.prod/chat"
VARIANT = f"{SERVICE}.variants.h100"


def parse(data: Any) -> Observation:
    return parse_observation(json.dumps(data), 1)


def with_variant(**changes: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(FULL))
    data["services"]["prod/chat"]["variants"]["h100"].update(changes)
    return data  # type: ignore[no-any-return]


def with_service(**changes: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(FULL))
    data["services"]["prod/chat"].update(changes)
    return data  # type: ignore[no-any-return]


def error(line: str) -> tuple[str, str]:
    with pytest.raises(WireError) as caught:
        parse_observation(line, 7)
    assert caught.value.line == 7
    assert str(caught.value).startswith("line 7: ")
    return caught.value.field, caught.value.message


def test_every_field_arrives() -> None:
    observation = parse(FULL)
    assert observation == Observation(
        now_seconds=1767571200.0,
        interval_seconds=15.0,
        services={
            "prod/chat": ServiceObservation(
                arrival_rate_rps=3.2,
                isl_tokens=1024.0,
                osl_tokens=210.0,
                variants={
                    "h100": VariantObservation(
                        ready=3,
                        starting=1,
                        draining=2,
                        desired=5,
                        running=41.5,
                        waiting=0.0,
                        kv_cache_usage_ratio=0.4,
                        ttft_p50_seconds=0.08,
                        ttft_p95_seconds=0.31,
                        ttft_p99_seconds=0.42,
                        tpot_p50_seconds=0.021,
                        tpot_p95_seconds=0.03,
                        tpot_p99_seconds=0.034,
                        finished_requests=47.0,
                        ttft_within_slo_ratio=1.0,
                        tpot_within_slo_ratio=0.99,
                        slo_attainment_ratio=0.98,
                    )
                },
            )
        },
        pools={"h100-80gb": 32},
    )
    assert type(observation.services["prod/chat"].isl_tokens) is float


def test_the_protocols_names_are_the_cores_in_the_cores_order() -> None:
    names = tuple(f.name for f in fields(VariantObservation))
    assert names == (*wire.COUNTS, *wire.VARIANT_NUMBERS)
    assert tuple(f.name for f in fields(ServiceObservation)) == (*wire.SERVICE_NUMBERS, "variants")


@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
def test_a_missing_number_is_nan(value: Any) -> None:
    changes = {} if value is ... else {"arrival_rate_rps": None, "isl_tokens": None}
    data = {"now_seconds": 60, "interval_seconds": 15, "services": {"a/b": changes}}
    service = parse(data).services["a/b"]
    assert math.isnan(service.arrival_rate_rps)
    assert math.isnan(service.isl_tokens)
    assert service.variants == {}


@pytest.mark.parametrize("name", wire.VARIANT_NUMBERS)
def test_a_missing_number_of_a_variant_is_nan(name: str) -> None:
    assert math.isnan(
        getattr(parse(with_variant(**{name: None})).services["prod/chat"].variants["h100"], name)
    )


def test_what_telemetry_lost_is_absent() -> None:
    for data in (with_variant(ready=None), with_service(variants={"h100": {"running": 3.0}})):
        assert parse(data).services["prod/chat"].variants == {}
    assert parse(with_service(variants={"h100": None})).services["prod/chat"].variants == {}
    assert parse({**FULL, "services": {"prod/chat": None}}).services == {}
    assert parse({**FULL, "services": {}}).services == {}


def test_counts_that_may_be_left_out() -> None:
    bare = parse(with_service(variants={"h100": {"ready": 2}})).services["prod/chat"]
    assert bare.variants["h100"].desired == 2
    started = with_service(variants={"h100": {"ready": 2.0, "starting": 3}})
    variant = parse(started).services["prod/chat"].variants["h100"]
    assert (variant.ready, variant.starting, variant.draining, variant.desired) == (2, 3, 0, 5)
    assert type(variant.ready) is int


def test_pools_that_say_nothing_limit_nothing() -> None:
    for pools in (None, {}, {"a": None}, {"a": {}}, {"a": {"total_gpus": None}}):
        assert parse({**FULL, "pools": pools}).pools == {}
    assert parse({k: v for k, v in FULL.items() if k != "pools"}).pools == {}
    assert parse({**FULL, "pools": {"a": {"total_gpus": 0}}}).pools == {"a": 0}  # none, not unknown


def test_free_accelerators_by_node_are_read_and_written() -> None:
    told = {**FULL, "pools": {"a": {"free_gpus_by_node": [8, 2.0]}, "b": {"total_gpus": 4}}}
    seen = parse(told)
    assert (seen.pools, seen.free_on_nodes) == ({"b": 4}, {"a": (8, 2)})
    assert parse(observation_to_dict(seen)) == seen
    full = parse({**FULL, "pools": {"a": {"total_gpus": 4, "free_gpus_by_node": []}}})
    assert full.free_on_nodes == {"a": ()}  # none is free, which is known
    assert parse({**FULL, "pools": {"a": {"free_gpus_by_node": None}}}).free_on_nodes == {}


def test_unknown_keys_are_ignored() -> None:
    data = with_variant(colour="red", nested={"deep": [1, {"x": None}]})
    assert parse({**data, "version": 2}) == parse(FULL)


COUNT = "an integer from 0 to 2147483647"
NUMBER = "a number from 0 to 1e+15, or null where it is missing"
WRONG = [
    ({**FULL, "now_seconds": None}, "now_seconds", "missing; required: seconds from 0 to 1"),
    ({**FULL, "now_seconds": True}, "now_seconds", "true is not allowed; allowed: seconds from"),
    ({**FULL, "now_seconds": "60"}, "now_seconds", '"60" is not allowed; allowed: seconds from'),
    ({**FULL, "now_seconds": -1}, "now_seconds", "-1 is not allowed; allowed: seconds from 0"),
    ({**FULL, "now_seconds": 1767571200000}, "now_seconds", "1767571200000 is not allowed"),
    ({**FULL, "interval_seconds": 0}, "interval_seconds", "0 is not allowed; allowed: a number a"),
    ({**FULL, "interval_seconds": 15000 * 60}, "interval_seconds", "900000 is not allowed"),
    ({**FULL, "services": None}, "services", "missing; required: an object"),
    ({**FULL, "services": []}, "services", "a list is not allowed; allowed: an object"),
    ({**FULL, "services": {"prod/chat": 3}}, SERVICE, "3 is not allowed; allowed: an object"),
    (with_service(variants=[1]), f"{SERVICE}.variants", "a list is not allowed; allowed: an obj"),
    (with_service(variants={"h100": 4}), VARIANT, "4 is not allowed; allowed: an object"),
    (with_service(arrival_rate_rps=-0.1), f"{SERVICE}.arrival_rate_rps", "-0.1 is not allowed"),
    (with_service(arrival_rate_rps=False), f"{SERVICE}.arrival_rate_rps", "false is not allowed"),
    (
        with_service(isl_tokens="9"),
        f"{SERVICE}.isl_tokens",
        f'"9" is not allowed; allowed: {NUMBER}',
    ),
    (with_service(isl_tokens=10**400), f"{SERVICE}.isl_tokens", "1000"),
    (with_variant(ready=-1), f"{VARIANT}.ready", f"-1 is not allowed; allowed: {COUNT}"),
    (with_variant(ready=True), f"{VARIANT}.ready", f"true is not allowed; allowed: {COUNT}"),
    (with_variant(ready=1.5), f"{VARIANT}.ready", f"1.5 is not allowed; allowed: {COUNT}"),
    (with_variant(starting="1"), f"{VARIANT}.starting", f'"1" is not allowed; allowed: {COUNT}'),
    (with_variant(draining=[]), f"{VARIANT}.draining", f"a list is not allowed; allowed: {COUNT}"),
    (
        with_variant(desired=2**31),
        f"{VARIANT}.desired",
        f"2147483648 is not allowed; allowed: {COUNT}",
    ),
    (with_variant(ready=None, running=-1), f"{VARIANT}.running", "-1 is not allowed; allowed: "),
    (with_variant(ttft_p95_seconds={}), f"{VARIANT}.ttft_p95_seconds", "an object is not allowed"),
    ({**FULL, "pools": [1]}, "pools", "a list is not allowed; allowed: an object"),
    ({**FULL, "pools": {"a": 8}}, "pools.a", "8 is not allowed; allowed: an object"),
    ({**FULL, "pools": {"a": {"total_gpus": 7.5}}}, "pools.a.total_gpus", "7.5 is not allowed"),
    (
        {**FULL, "pools": {"a": {"free_gpus_by_node": 8}}},
        "pools.a.free_gpus_by_node",
        "8 is not allowed; allowed: a list of accelerators free on each node",
    ),
    (
        {**FULL, "pools": {"a": {"free_gpus_by_node": [1, -1]}}},
        "pools.a.free_gpus_by_node.1",
        "-1 is not allowed; allowed: an integer from 0",
    ),
    (
        {**FULL, "services": {"x" * 99: {"isl_tokens": "y" * 999}}},
        f"services.{'x' * 99}.isl_tokens",
        '"yyy',
    ),
]


@pytest.mark.parametrize(
    ("data", "field", "start"), WRONG, ids=[f"{i}-{f[-30:]}" for i, (_, f, _) in enumerate(WRONG)]
)
def test_what_is_wrong_is_named(data: Any, field: str, start: str) -> None:
    got_field, message = error(json.dumps(data))
    assert got_field == field
    assert message.startswith(start)
    assert len(message) < 200


@pytest.mark.parametrize("name", [*wire.VARIANT_NUMBERS, "ready"])
@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_not_a_number_is_no_json(name: str, literal: str) -> None:
    line = json.dumps(with_variant(**{name: "?"})).replace('"?"', literal)
    field, message = error(line)
    assert field == f"{VARIANT}.{name}"
    assert message == f"{literal} is not JSON; a missing number is null"


LINES = [
    ("", "", "not JSON: Expecting value"),
    ("{", "", "not JSON: Expecting property name"),
    ("null", "", "missing; required: an object"),
    ("[1]", "", "a list is not allowed; allowed: an object"),
    ('{"a": 1} {"b": 2}', "", "not JSON: Extra data"),
    ('{"services": {"a/b": {}, "a/b": {}}}', "a/b", "appears twice in one object; allowed: once"),
    ('{"x": [0, {"y": NaN}]}', "x[1].y", "NaN is not JSON; a missing number is null"),
    ('{"x": 1e999, "y": NaN}', "y", "NaN is not JSON; a missing number is null"),
    ("[" * 100_000, "", "nested too deeply; allowed: one JSON object"),
    ('{"x":' + "[" * 3000 + "NaN" + "]" * 3000 + "}", "", "nested too deeply"),
    ("9" * 5000, "", "not JSON: Exceeds the limit"),
]


@pytest.mark.parametrize(("line", "field", "start"), LINES, ids=[s[:30] for _, _, s in LINES])
def test_lines_that_are_no_observation(line: str, field: str, start: str) -> None:
    got_field, message = error(line)
    assert (got_field, message[: len(start)]) == (field, start)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    line = json.dumps(with_service(arrival_rate_rps="?")).replace('"?"', "1e999")
    field, message = error(line)
    assert field == f"{SERVICE}.arrival_rate_rps"
    assert message == f"Infinity is not allowed; allowed: {NUMBER}"


def test_the_length_of_a_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_LINE_CHARACTERS", 10)
    assert error('{"abcd": 1}') == ("", "11 characters; allowed: up to 10")


def test_names_from_outside_are_cut() -> None:
    field, _ = error(json.dumps({**FULL, "services": {"x" * 10_000: 1}}))
    assert field == "services." + "x" * (1000 - len("services."))


counts = st.integers(0, 10_000)
numbers = st.floats(0.0, 1e12) | st.just(math.nan)
variants = st.builds(
    VariantObservation,
    *[counts] * len(wire.COUNTS),
    **dict.fromkeys(wire.VARIANT_NUMBERS, numbers),
)
services = st.builds(
    ServiceObservation, numbers, numbers, numbers, st.dictionaries(st.text(), variants, max_size=3)
)
observations = st.builds(
    Observation,
    now_seconds=st.floats(0.0, 1e11),
    interval_seconds=st.floats(0.001, 86_400.0),
    services=st.dictionaries(st.text(), services, max_size=3),
    pools=st.dictionaries(st.text(), counts, max_size=3),
)


@given(observations)
def test_an_observation_written_reads_the_same(observation: Observation) -> None:
    line = json.dumps(observation_to_dict(observation), allow_nan=False)
    # repr holds every field, tells -0.0 from 0.0, and NaN is like NaN
    assert repr(parse_observation(line, 1)) == repr(observation)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
paths = st.sampled_from(
    [
        ("now_seconds",),
        ("interval_seconds",),
        ("services",),
        ("services", "prod/chat"),
        ("services", "prod/chat", "variants"),
        *[("services", "prod/chat", name) for name in wire.SERVICE_NUMBERS],
        ("services", "prod/chat", "variants", "h100"),
        *[("services", "prod/chat", "variants", "h100", n) for n in (*wire.COUNTS, "running")],
        ("pools",),
        ("pools", "h100-80gb"),
        ("pools", "h100-80gb", "total_gpus"),
        ("pools", "h100-80gb", "free_gpus_by_node"),
    ]
)


@given(paths, junk)
def test_junk_anywhere_is_read_or_named_where_it_stands(path: tuple[str, ...], value: Any) -> None:
    data: Any = json.loads(json.dumps(FULL))
    at = data
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    field = ".".join(path)
    try:
        observation = parse(data)
    except WireError as caught:
        field = caught.field
    else:
        assert observation.interval_seconds > 0
        for service in observation.services.values():
            assert not service.arrival_rate_rps < 0
            assert all(v.ready >= 0 for v in service.variants.values())
    assert field.startswith(".".join(path))


def test_a_thousand_services_are_quick() -> None:
    variant = FULL["services"]["prod/chat"]["variants"]["h100"]
    service = {**FULL["services"]["prod/chat"], "variants": {"a": variant, "b": variant}}
    line = json.dumps({**FULL, "services": {f"bench/s{i}": service for i in range(1000)}})
    took = []
    for _ in range(5):
        start = time.process_time()
        observation = parse_observation(line, 1)
        took.append(time.process_time() - start)
    assert len(observation.services) == 1000
    assert min(took) < 0.05
