"""From requests that engines and gateway hold to replicas: a floor, of what is known alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaler_rig import policy

from autoscaler.edge.keda.plan import Plan, plan_of
from autoscaler.edge.keda.reactive import WINDOW_SECONDS, Floors, Load, loads_of, needed
from models.contract import Labels
from models.contract_api import Row

LABELS = Labels()
Variant = tuple[str, int, float | None, int]  # role, maximum, requests a replica holds, runs


def plan(*variants: Variant, name: str = "chat", model: str = "llama") -> Plan:
    document = policy(name)
    document["spec"]["model"] = model
    names = "abcdef"[: len(variants)]
    document["spec"]["variants"] = [
        {"name": n, "role": role, "minReplicas": 0, "maxReplicas": most}
        for n, (role, most, _, _) in zip(names, variants, strict=True)
    ]
    document["status"]["variants"] = [
        {"name": n, "desired": runs, "current": runs}
        | ({} if holds is None else {"replicaConcurrency": holds})
        for n, (_, _, holds, runs) in zip(names, variants, strict=True)
    ]
    return plan_of(document)


@pytest.mark.parametrize(
    ("variants", "load", "counts"),
    [
        ([("Both", 40, 10.0, 5)], Load({"a": 50.0}), {"a": 5}),
        ([("Both", 40, 10.0, 5)], Load({"a": 50.1}), {"a": 6}),
        ([("Both", 40, 0.1, 5)], Load({"a": 50.0}), {"a": 1}),  # of less than one nobody is told
        ([("Both", 40, 10.0, 5)], Load({"a": 0.3 * 100}), {"a": 3}),  # 30.000000000000004
        ([("Both", 4, 10.0, 5)], Load({"a": 90.0}), {"a": 4}),
        ([("Both", 40, 10.0, 5)], Load({}, queued=30.0), {"a": 8}),  # nobody knows what runs: beside it
        ([("Both", 40, 10.0, 5)], Load({"a": 20.0}, queued=30.0), {"a": 2}),  # five have room for all
        ([("Both", 40, 10.0, 5)], Load({"a": 40.0}, queued=30.0), {"a": 7}),
        ([("Both", 40, 10.0, 0)], Load({}, queued=30.0), {"a": 3}),  # at zero
        # nothing is known of a replica, but that what serves must not go to zero
        ([("Both", 40, None, 5)], Load({"a": 500.0}, queued=99.0), {"a": 1}),
        ([("Both", 40, None, 5)], Load({"a": 0.0}, queued=99.0), {"a": 0}),
        # two variants: each its own; what is beyond the first one's maximum goes to the other
        ([("Both", 4, 10.0, 2), ("Both", 9, 5.0, 2)], Load({"a": 35.0, "b": 11.0}), {"a": 4, "b": 3}),
        ([("Both", 4, 10.0, 2), ("Both", 9, 5.0, 2)], Load({"a": 60.0, "b": 9.0}), {"a": 4, "b": 6}),
        ([("Both", 4, 10.0, 2), ("Both", 9, 5.0, 2)], Load({"a": 999.0}), {"a": 4, "b": 9}),
        ([("Both", 4, 10.0, 2), ("Both", 9, None, 2)], Load({"a": 999.0, "b": 0.0}), {"a": 4, "b": 0}),
        # a queue waits for both phases
        (
            [("Prefill", 9, 2.0, 1), ("Decode", 9, 20.0, 1)],
            Load({"a": 2.0, "b": 20.0}, queued=10.0),
            {"a": 6, "b": 2},
        ),
    ],
)  # fmt: skip
def test_replicas_of_a_load(variants: list[Variant], load: Load, counts: dict[str, int]) -> None:
    assert needed(plan(*variants), load) == counts


loads = st.builds(
    Load,
    st.dictionaries(st.sampled_from("ab"), st.floats(0, 1e12)),
    st.dictionaries(st.sampled_from("ab"), st.floats(0, 1e6)),
    st.floats(0, 1e12),
)
kinds = st.tuples(
    st.sampled_from(["Both", "Prefill", "Decode"]),
    st.integers(0, 50),
    st.none() | st.floats(1, 1e6),
    st.integers(0, 60),
)


@given(st.lists(kinds, min_size=1, max_size=2), loads, st.floats(0, 1e6))
def test_never_beyond_the_maximum_and_more_load_never_needs_less(
    variants: list[Variant], load: Load, more: float
) -> None:
    it = plan(*variants)
    counts = needed(it, load)
    for v in it.variants:
        assert 0 <= counts.get(v.name, 0) <= v.max_replicas
        assert v.concurrency is not None or counts.get(v.name, 0) <= 1
    queued = needed(it, Load(load.requests, load.pods, load.queued + more))
    assert all(queued[name] >= n for name, n in counts.items())


def row(value: float, variant: str = "", service: str = "chat", **labels: str) -> Row:
    own = {"namespace": "prod", "service": service} | ({"variant": variant} if variant else {})
    return Row(own | labels, np.asarray([0.0]), np.asarray([value]))


def queue(value: float, model: str = "llama", namespace: str = "prod") -> Row:
    return Row(
        {"namespace": namespace, "target_model_name": model},
        np.asarray([0.0]),
        np.asarray([value]),
    )


def measured(*asked: Plan, everybody: tuple[Plan, ...] = (), **answers: Any) -> dict[str, Load]:
    return loads_of(answers, asked, everybody or asked, LABELS)


def test_what_is_measured_is_taken_and_nothing_else() -> None:
    two = plan(("Both", 9, 5.0, 1), ("Both", 9, 5.0, 1))
    got = measured(
        two,
        running=[row(4.0, "a"), row(float("nan"), "b"), row(9.0, "a", service="other"), row(1.0)],
        waiting=[row(3.0, "a"), row(2.0, "b")],
        ready_replicas=[row(2.0, "a")],
        gateway_queue=[queue(5.0), queue(7.0, "qwen"), queue(float("nan")), queue(-1.0)],
    )
    assert got == {"prod/chat": Load({"a": 7.0}, {"a": 2.0}, 5.0)}
    assert measured(two) == {"prod/chat": Load()}


def test_a_service_of_one_variant_may_carry_no_label_of_it() -> None:
    got = measured(plan(("Both", 9, 5.0, 1)), running=[row(4.0)], waiting=[row(1.0)])
    assert got["prod/chat"].requests == {"a": 5.0}


def test_a_queue_for_a_model_that_two_services_serve_is_nobodys() -> None:
    one, other = plan(("Both", 9, 5.0, 1)), plan(("Both", 9, 5.0, 1), name="code")
    got = measured(one, everybody=(one, other), gateway_queue=[queue(5.0)])
    assert got["prod/chat"].queued == 0.0
    got = measured(one, everybody=(one, other), gateway_queue=[queue(5.0, namespace="dev")])
    assert got["prod/chat"].queued == 0.0


def test_a_floor_is_the_most_of_five_minutes_and_falls_by_what_is_measured_alone() -> None:
    it, floors = plan(("Both", 40, 10.0, 5)), Floors()

    def take(requests: float | None, at: float) -> int:
        loads = {} if requests is None else {"prod/chat": Load({"a": requests})}
        return floors.take([it], loads, at)["prod/chat"].get("a", 0)

    assert take(None, 0.0) == 0
    assert take(120.0, 10.0) == 12
    assert take(60.0, 20.0) == 12
    assert take(None, 10.0 + 2 * WINDOW_SECONDS) == 12  # silence is no fall
    assert take(60.0, 20.0 + 2 * WINDOW_SECONDS) == 6
    assert floors.take([], {}, 1e4) == {}
    assert take(None, 1e4 + 1) == 0  # fresh in between: begun anew


def test_what_serves_when_it_is_first_measured_is_no_less_for_five_minutes() -> None:
    """Of a scaler that has just started: what the load needed before is not known, the pods are."""
    it, floors = plan(("Both", 40, 10.0, 5)), Floors()
    load = {"prod/chat": Load({"a": 30.0}, {"a": 11.6})}
    assert floors.take([it], load, 0.0) == {"prod/chat": {"a": 12}}
    assert floors.take([it], load, WINDOW_SECONDS - 1.0) == {"prod/chat": {"a": 12}}
    assert floors.take([it], load, WINDOW_SECONDS + 1.0) == {"prod/chat": {"a": 3}}
