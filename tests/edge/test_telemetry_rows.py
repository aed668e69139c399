"""Numbers of a tick from answers that are written here: shares within targets, held requests."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import (
    Behavior,
    Fallback,
    Mode,
    Policies,
    Policy,
    ScalingRules,
    TargetRef,
    Variant,
)
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.reading import Reading
from autoscaler.edge.telemetry_rows import MAX_DOUBT_RATIO, Answers
from models import contract_series as of
from models.contract import Labels, serving_pods
from models.contract_api import Row
from models.contract_queries import live_queries
from models.slo import SloTargets

KEY = ("prod/chat", "h100")
SERVICE = {"namespace": "prod", "service": "chat", "variant": "h100"}
BOUNDS = (0.1, 0.5, 2.0, math.inf)
SETTINGS = ReaderSettings()
TARGETS = SloTargets(ttft_seconds=1.0, tpot_seconds=0.5)


def row(value: float, **labels: str) -> Row:
    return Row(labels, np.array([0.0]), np.array([value]))


def buckets(*cumulative: float) -> list[Row]:
    return [
        row(count, **SERVICE, le=f"{bound}")
        for bound, count in zip(BOUNDS, cumulative, strict=True)
    ]


def answers(ttft: Sequence[float], tpot: Sequence[float], targets: SloTargets = TARGETS) -> Answers:
    rows = {"ttft_buckets:0": buckets(*ttft), "tpot_buckets:0": buckets(*tpot)}
    return Answers(rows, Labels(), 60.0, 75.0, 15.0, {KEY[0]: targets})


def test_a_target_inside_a_bucket_is_interpolated() -> None:
    seen = answers((2, 4, 10, 10), (8, 10, 10, 10))
    # TTFT 1 s lies a third into (0.5, 2]: 4 + 6/3 of 10; at least 4, at most all
    assert seen.get("ttft_within", KEY) == pytest.approx(0.6)
    assert seen.get("ttft_within_least", KEY) == pytest.approx(0.4)
    assert seen.get("ttft_within_most", KEY) == pytest.approx(1.0)
    assert seen.get("tpot_within", KEY) == 1.0  # 0.5 s is a bound: exact
    assert math.isnan(seen.attained(KEY, TARGETS))  # 0.4 to 1: not told


def test_beyond_the_last_bound_only_what_is_certain_counts() -> None:
    seen = answers((0, 0, 7, 10), (10, 10, 10, 10), SloTargets(5.0, 0.5))
    assert seen.get("ttft_within", KEY) == pytest.approx(0.7)
    assert seen.get("ttft_within_most", KEY) == 1.0


@pytest.mark.parametrize(
    ("ttft", "tpot", "targets", "expected"),
    [
        # one objective is always met: the other one tells
        ((2, 8, 10, 10), (10, 10, 10, 10), SloTargets(0.5, 0.5), 0.8),
        ((2, 8, 10, 10), (9, 9, 10, 10), SloTargets(0.5, math.inf), 0.8),  # one objective only
        # 0.8 and 0.9: between 0.7 and 0.8 of the requests meet both
        ((2, 8, 10, 10), (9, 9, 10, 10), SloTargets(0.5, 0.5), math.nan),
        # 0.9995 and 0.9: between 0.8995 and 0.9
        ((0, 9995, 10000, 10000), (0, 9000, 9000, 10000), SloTargets(0.5, 0.5), 0.89975),
        ((2, 8, 10, 10), (10, 10, 10, 10), SloTargets(0.5, 0.5, 30.0), math.nan),  # e2e is not read
        ((0, 0, 0, 0), (0, 0, 0, 0), SloTargets(0.5, 0.5), math.nan),  # nothing measured
        ((2, 8, 10, 10), (2, 8, 10, 10), SloTargets(), math.nan),  # nothing asked
    ],
)
def test_the_share_that_meets_all_targets_is_told_where_it_is_known(
    ttft: Sequence[float], tpot: Sequence[float], targets: SloTargets, expected: float
) -> None:
    found = answers(ttft, tpot, targets).attained(KEY, targets)
    assert found == pytest.approx(expected, nan_ok=True)


@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(0.01, 3.0)), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.9, 2.0, 2.9]),
    st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.9, 2.0, 2.9]),
)
def test_the_truth_is_inside_what_is_told(
    requests: list[tuple[float, float]], ttft: float, tpot: float
) -> None:
    times = np.array(requests)
    targets = SloTargets(ttft, tpot)
    counts = [[float((times[:, i] <= b).sum()) for b in BOUNDS] for i in (0, 1)]
    seen = answers(counts[0], counts[1], targets)
    for i, (what, target) in enumerate((("ttft", ttft), ("tpot", tpot))):
        true = float((times[:, i] <= target).mean())
        least, told, most = (seen.get(f"{what}_within{e}", KEY) for e in ("_least", "", "_most"))
        assert least - 1e-12 <= true <= most + 1e-12
        assert least - 1e-12 <= told <= most + 1e-12
    both = float(((times[:, 0] <= ttft) & (times[:, 1] <= tpot)).mean())
    joint = seen.attained(KEY, targets)
    assert math.isnan(joint) or abs(joint - both) <= MAX_DOUBT_RATIO / 2 + 1e-12


class Canned:
    """Answers a tick's queries from a table by name; what is not in it has no rows."""

    def __init__(self, rows: Mapping[str, list[Row]]) -> None:
        names = {
            q: n
            for n, q in live_queries(
                Labels(), SETTINGS.window_seconds, SETTINGS.scrape_seconds
            ).items()
        }
        self._rows = {q: rows.get(n, []) for q, n in names.items()}

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        assert at_seconds == 0.0
        return self._rows[query]

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        raise NotImplementedError


class Asked:
    """Knows nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        del at_seconds
        self.queries.append(query)
        return []

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        raise NotImplementedError


def test_the_reader_counts_pods_by_its_own_scrapes() -> None:
    """A window of 38 s holds two or three of 15 s: who has two is there."""
    settings, api = ReaderSettings(interval_seconds=15.0, scrape_seconds=15.0), Asked()
    with PrometheusReader(api, Labels(), settings) as reader:
        reader.read(Policies({}, ()), 0.0)
    (pods,) = [q for q in api.queries if "group_left" in q]
    assert pods == serving_pods(of.RUNNING, Labels(), 38.0, 15.0)
    assert pods.count(", 2), 1))") == len(of.RUNNING.series)


def tick(rows: Mapping[str, list[Row]], *variants: str) -> Reading:
    policy = Policy(
        service="prod/chat",
        model="big",
        targets=TARGETS,
        attainment=0.99,
        window_hours=1.0,
        priority=0,
        variants=tuple(
            Variant(v, v, 1, 0, 10, TargetRef("apps/v1", "Deployment", v)) for v in variants
        ),
        behavior=Behavior(Mode.RECOMMEND, ScalingRules(0.0), ScalingRules(300.0)),
        fallback=Fallback(600.0, None),
    )
    with PrometheusReader(Canned(rows), Labels(), SETTINGS) as reader:
        return reader.read(Policies({"prod/chat": policy}, ()), 0.0)


def workload(ready: Mapping[str, int]) -> dict[str, list[Row]]:
    rows = [row(n, namespace="prod", deployment=name) for name, n in ready.items()]
    return {f"replicas_{what}": rows for what in ("desired", "ready", "present")}


def engines(**waiting: float) -> dict[str, list[Row]]:
    labels = {v: {**SERVICE, "variant": v} for v in waiting}
    return {
        "waiting": [row(n, **labels[v]) for v, n in waiting.items()],
        "ready_replicas": [row(1.0, **labels[v]) for v in waiting],
    }


HELD = {
    "gateway": [row(0.5, namespace="prod", target_model_name="big")],
    "gateway_queue": [row(8.0, namespace="prod", target_model_name="big")],
}


def test_what_the_gateway_holds_waits_by_ready_replicas() -> None:
    reading = tick(workload({"h100": 3, "l4": 1}) | engines(h100=1.0, l4=2.0) | HELD, "h100", "l4")
    seen = reading.observation.services["prod/chat"].variants
    assert seen["h100"].waiting == pytest.approx(1 + 6)  # 3 of 4 replicas: 3/4 of 8
    assert seen["l4"].waiting == pytest.approx(2 + 2)


def test_a_queue_at_the_gateway_is_seen_without_a_single_replica() -> None:
    reading = tick(workload({"h100": 0, "l4": 0}) | HELD, "h100", "l4")
    seen = reading.observation.services["prod/chat"].variants
    assert seen["h100"].waiting == 8.0
    assert seen["l4"].waiting == 0.0  # no engine, and nothing held for it
    assert seen["h100"].ready == 0


def test_what_the_gateway_holds_is_demand_before_an_engine_knows_of_it() -> None:
    """No counter at the gateway: 15 requests more wait than a window of 75 s ago."""
    queue = {
        "gateway_queue": [row(20.0, namespace="prod", target_model_name="big")],
        "gateway_held": [row(15.0, namespace="prod", target_model_name="big")],
    }
    rates = {"completion_rate_rps": 1.0, "running_change": 0.0, "waiting_change": 0.0, "samples": 5}
    speaks = {name: [row(x, **SERVICE)] for name, x in rates.items()}
    fleet = workload({"h100": 1}) | engines(h100=0.0) | speaks
    assert tick(fleet, "h100").observation.services["prod/chat"].arrival_rate_rps == 1.0
    seen = tick(fleet | queue, "h100").observation.services["prod/chat"]
    assert seen.arrival_rate_rps == pytest.approx(1.0 + 15 / SETTINGS.window_seconds)
    at_zero = tick(workload({"h100": 0}) | queue, "h100").observation.services["prod/chat"]
    assert at_zero.arrival_rate_rps == pytest.approx(15 / SETTINGS.window_seconds)
    assert at_zero.variants["h100"].waiting == 20.0
    nobody = {"gateway_queue": [row(0.0, namespace="prod", target_model_name="big")]}
    assert tick(workload({"h100": 0}) | nobody, "h100").silent == ("prod/chat",)  # not a zero


def test_an_engine_that_does_not_tell_its_queue_stays_unknown() -> None:
    fleet = workload({"h100": 1}) | engines(h100=1.0)
    reading = tick({**fleet, "waiting": []} | HELD, "h100")
    assert math.isnan(reading.observation.services["prod/chat"].variants["h100"].waiting)


def test_a_queue_in_another_namespace_is_not_this_ones() -> None:
    fleet = workload({"h100": 1}) | engines(h100=1.0)
    one = tick(fleet | HELD, "h100").observation.services["prod/chat"]
    other = {**HELD, "gateway_queue": [row(8.0, namespace="dev", target_model_name="big")]}
    two = tick(fleet | other, "h100").observation.services["prod/chat"]
    assert one.variants["h100"].waiting == 9.0
    assert two.variants["h100"].waiting == 1.0


def test_draining_pods_are_taken_off_scraped_ones() -> None:
    drain = {"draining": [row(1.0, **SERVICE)], "ready_replicas": [row(3.0, **SERVICE)]}
    seen = tick(drain, "h100").observation.services["prod/chat"].variants["h100"]
    assert (seen.ready, seen.draining, seen.desired) == (2, 1, 2)
    told = tick(workload({"h100": 2}) | drain, "h100").observation.services["prod/chat"]
    assert (told.variants["h100"].ready, told.variants["h100"].draining) == (2, 1)
