"""Small comparisons from end to end: an hour of load, a fast engine, a controller that is made up."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import measures

from autoscaler.core.types import Observation, Reason
from autoscaler.edge.policy_files import load_policies
from autoscaler.sim.bundle import read_bundled
from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.variants import Spot
from autoscaler.sim.workload import Requests
from autoscaler.whatif.arrivals import Arrivals
from autoscaler.whatif.capacity import replica_capacity
from autoscaler.whatif.case import Case, build_case, draw_engine, judged_window, priced
from autoscaler.whatif.compare import compare
from autoscaler.whatif.history import cut_history, load_frame, simulate_history
from autoscaler.whatif.observed import (
    LognormalStartup,
    ObservedStartup,
    recorded_fleet,
    startup_of,
)
from autoscaler.whatif.output import report_json
from autoscaler.whatif.race import Contest, attained
from autoscaler.whatif.results import Comparison
from autoscaler.whatif.rivals import RANGES, Setting, make_rival, peak_rps, searches
from autoscaler.whatif.run import Driven, drive
from autoscaler.whatif.scenario import Scenario, ScenarioError
from models.frames import validate_load, validate_serving, validate_startups
from models.slo import SloTargets

START = 1_715_731_200.0  # 2024-05-15 00:00 UTC
PROFILE = EngineProfile("fast", 0.01, 1e-4, 1e-8, 2e-5)
POLICIES = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: gpus}
spec:
  classes:
    - {name: h100, resourceName: nvidia.com/gpu, usdPerHour: 5.0, quota: {count: 32}}
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: code, namespace: prod}
spec:
  model: m
  slo:
    objectives: [{metric: ttft, targetSeconds: 1.0}]
    attainment: 0.95
  variants:
    - name: h100
      acceleratorClass: h100
      acceleratorsPerReplica: 2
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: code}
      minReplicas: 1
      maxReplicas: 12
  behavior: {mode: Recommend}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    return path


def scenario_of(policies: Path, **changes: object) -> Scenario:
    base: dict[str, object] = {
        "name": "small",
        "trace": "bundled:azure2024-code",
        "profile": "llama2-70b-h100-80gb-tp4",
        "policies": policies,
        "startup": {"medianSeconds": 60, "sigma": 0.1},
        "judgedHours": 0.5,
        "warmUpSeconds": 300,
        "engineErrorRatio": 0,
    }
    return Scenario.model_validate({**base, **changes})


def steady(rate_rps: float, seconds: float, *, since: float = START) -> Requests:
    rng = np.random.default_rng(1)
    n = rng.poisson(rate_rps * seconds)
    at = since + np.sort(rng.random(n)) * seconds
    return Requests(at, rng.integers(200, 800, n), rng.integers(10, 60, n))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An hour at 12 requests a second; frozen, so that all tests may share it."""
    policies = tmp_path_factory.mktemp("case") / "policies.yaml"
    policies.write_text(POLICIES)
    arrivals = Arrivals({"prod/code": steady(12.0, 3600.0)}, START, START + 3600.0)
    engines = {("prod/code", "h100"): PROFILE}
    return build_case(scenario_of(policies), load_policies([policies]), arrivals, engines)


@pytest.mark.parametrize(
    ("capacity", "taken"),
    [
        ("", None),
        (", capacityType: Spot", Spot(0.2, 30.0)),
        (", capacityType: Spot, interruptionsPerHour: 1.5", Spot(1.5, 30.0)),
        (", capacityType: Spot, interruptionsPerHour: 0", None),
    ],
)
def test_replicas_are_taken_back_as_often_as_plans_expect(
    tmp_path: Path, capacity: str, taken: Spot | None
) -> None:
    path = tmp_path / "policies.yaml"
    assert POLICIES.count("quota: {count: 32}") == 1
    path.write_text(POLICIES.replace("quota: {count: 32}", f"quota: {{count: 32}}{capacity}"))
    arrivals = Arrivals({"prod/code": steady(1.0, 3600.0)}, START, START + 3600.0)
    scenario = scenario_of(path, spot={"noticeSeconds": 30})
    made = build_case(scenario, load_policies([path]), arrivals, {("prod/code", "h100"): PROFILE})
    assert [v.spot for v in made.services["prod/code"].variants] == [taken]


class Scripted:
    """Wants 3 replicas, and from a time on 5."""

    name = "scripted"

    def __init__(self, since_seconds: float) -> None:
        self.since_seconds = since_seconds
        self.seen: list[Observation] = []

    def decide(self, observation: Observation) -> Mapping[str, Mapping[str, int]]:
        self.seen.append(observation)
        return {"prod/code": {"h100": 5 if observation.now_seconds >= self.since_seconds else 3}}


def test_a_run_charges_every_replica_and_judges_after_the_warm_up(case: Case) -> None:
    scripted = Scripted(START + 3600.0)  # only at the last tick: charged no more
    got = drive(case, scripted)
    m = got.services["prod/code"]
    # decides at START + 1815, + 1830, ...: 120 ticks of 15 s in half an hour
    assert len(scripted.seen) == 120
    assert scripted.seen[0].now_seconds == START + 1815.0
    assert scripted.seen[0].pools == {"h100": 32}
    assert m.cost_usd == pytest.approx(5.0 * m.gpu_hours)
    assert got.series.cost_usd.sum() == pytest.approx(m.cost_usd)
    judged = case.services["prod/code"].requests.between(START + 2100.0, START + 3600.0)
    assert m.requests == len(judged.arrive_seconds)
    assert m.unserved_requests == 0
    opening = case.services["prod/code"].variants[0].initial_replicas
    assert opening == 2
    # 2 accelerators a replica: 2 replicas for one tick of 15 s, then 3, starting or ready, for 1785 s
    assert m.gpu_hours == pytest.approx(2 * (2 * 15 + 3 * 1785) / 3600)
    assert m.max_replicas == 3
    assert (m.scale_ups, m.scale_downs) == (2, 0)  # at the first tick, and after the last


def test_two_runs_of_the_same_thing_are_the_same(case: Case) -> None:
    first, again = (drive(case, make_rival(case, Setting("hpa", 3.0))) for _ in range(2))
    pd.testing.assert_frame_equal(first.series, again.series)
    assert first.services == again.services


def test_a_long_what_if_is_a_fluid_that_costs_the_same_and_waits_about_as_long(case: Case) -> None:
    static = Setting("static", 5)
    steps, fluid = (
        drive(changed, make_rival(changed, static)).services["prod/code"]
        for changed in (case, replace(case, fluid=True))
    )
    assert fluid.requests == steps.requests
    assert fluid.gpu_hours == pytest.approx(steps.gpu_hours)
    assert fluid.slo_attainment_ratio == pytest.approx(steps.slo_attainment_ratio, abs=0.03)
    assert fluid.ttft_p50_seconds == pytest.approx(steps.ttft_p50_seconds, rel=0.15)


def test_from_two_weeks_on_a_scenario_is_a_fluid_unless_it_says_otherwise(policies: Path) -> None:
    asked = {
        hours: scenario_of(policies, judgedHours=hours, simulator=kind).is_fluid
        for hours, kind in ((335.0, "auto"), (336.0, "auto"), (400.0, "steps"), (24.0, "fluid"))
    }
    assert asked == {335.0: False, 336.0: True, 400.0: False, 24.0: True}


def test_a_larger_static_fleet_costs_more_and_waits_less(case: Case) -> None:
    small, large = (
        drive(case, make_rival(case, Setting("static", n))).services["prod/code"] for n in (2, 6)
    )
    assert large.gpu_hours > 2 * small.gpu_hours
    assert large.ttft_p95_seconds <= small.ttft_p95_seconds


def test_every_rival_runs_and_its_search_spans_its_capacity(case: Case) -> None:
    service = case.services["prod/code"]
    assert peak_rps(service) == pytest.approx(12.0, rel=0.35)
    for name, pairs in {n: searches(case, n, 3) for n in ("static", "hpa", "kpa")}.items():
        for setting, search in pairs:
            low, high = sorted((search.lean, search.safe))
            assert low < high
            assert setting.name == name
    assert searches(case, "static", 3)[0][1].safe <= 12  # the policy's maximum
    bound = drive(case, make_rival(case, Setting("clairvoyant", 1.2, window_seconds=60.0)))
    assert bound.services["prod/code"].slo_attainment_ratio > 0.9


def test_attained_is_the_worst_service_on_the_strictest_scale() -> None:
    a, b = measures(slo_attainment_ratio=0.995), measures(slo_attainment_ratio=0.96)
    # a missed half of its 1 %, b 80 % of its 5 %: 1 - 0.01 * 0.8
    assert attained({"a": a, "b": b}, {"a": 0.99, "b": 0.95}) == pytest.approx(0.992)
    silent = measures(slo_attainment_ratio=math.nan)
    assert attained({"a": silent}, {"a": 0.99}) == 1.0


def test_a_contest_prefers_meeting_then_cost_then_nearness() -> None:
    def driven(ratio: float, cost: float) -> Driven:
        made = measures(slo_attainment_ratio=ratio, cost_usd=cost)
        return Driven({"a": made}, 1, pd.DataFrame())

    contest = Contest("hpa", {"a": 0.99}, [])
    for setting, run, best in (
        (1.0, driven(0.90, 10), 1.0),
        (2.0, driven(0.95, 20), 2.0),  # misses, but by less
        (3.0, driven(0.995, 99), 3.0),  # meets
        (4.0, driven(0.980, 5), 3.0),  # cheap, but misses
        (5.0, driven(0.991, 50), 5.0),  # meets and is cheaper
    ):
        contest.take(Setting("hpa", setting), None, run)
        assert contest.best is not None
        assert contest.best[0].value == best
    assert len(contest.tries) == 5


def test_capacity_falls_with_the_targets_and_is_zero_for_none() -> None:
    load = steady(10.0, 600.0)
    loose = replica_capacity(PROFILE, load, SloTargets(ttft_seconds=2.0), 0.95, seed=1)
    tight = replica_capacity(PROFILE, load, SloTargets(ttft_seconds=0.05), 0.95, seed=1)
    never = replica_capacity(PROFILE, load, SloTargets(ttft_seconds=0.001), 0.95, seed=1)
    assert loose.rate_rps > tight.rate_rps > never.rate_rps
    assert never.rate_rps == pytest.approx(0.01)
    assert loose.concurrency > tight.concurrency


def test_the_simulated_engine_is_off_by_about_the_error_that_is_asked_for() -> None:
    rng = np.random.default_rng(3)
    drawn = [draw_engine(PROFILE, 0.1, rng) for _ in range(400)]
    ratios = np.log([d.base_seconds / PROFILE.base_seconds for d in drawn])
    assert ratios.std() == pytest.approx(0.1, rel=0.15)  # 400 draws: standard error 3.5 %
    assert abs(ratios.mean()) < 0.02
    assert drawn[0].max_num_seqs == PROFILE.max_num_seqs
    assert draw_engine(PROFILE, 0.0, rng) == PROFILE


def test_prices_are_replaced_by_class(policies: Path) -> None:
    changed = priced(load_policies([policies]), {"h100": 9.0})
    assert changed.pools[0].classes[0].usd_per_hour == 9.0
    with pytest.raises(ScenarioError, match=r"no accelerator class 'h200' .* allowed: h100"):
        priced(load_policies([policies]), {"h200": 9.0})


def test_no_more_hours_are_judged_than_there_are(policies: Path) -> None:
    arrivals = Arrivals({"prod/code": steady(1.0, 3600.0)}, START, START + 3600.0)
    assert judged_window(scenario_of(policies), arrivals) == (START + 1800.0, START + 3600.0)
    with pytest.raises(ScenarioError, match="judgedHours: 2; allowed: up to 1,"):
        judged_window(scenario_of(policies, judgedHours=2), arrivals)


def test_start_up_times_come_from_the_scenario_or_the_telemetry(
    policies: Path, tmp_path: Path
) -> None:
    stamps = pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta([0, 60, 120], unit="s")
    pd.DataFrame(
        {
            "service": "prod/code",
            "variant": "h100",
            "created_ts": stamps,
            "ready_ts": [stamps[0] + pd.Timedelta("90s"), pd.NaT, stamps[2] + pd.Timedelta("70s")],
            "ended_ts": pd.Series([pd.NaT] * 3, dtype="datetime64[ns, UTC]"),
        }
    ).to_parquet(tmp_path / "startups.parquet")
    given = startup_of(scenario_of(policies), "prod/code", "h100")
    assert given == LognormalStartup(60.0, 0.1)
    observed = startup_of(
        scenario_of(policies, trace=None, telemetry=tmp_path, startup=None), "prod/code", "h100"
    )
    assert isinstance(observed, ObservedStartup)
    assert sorted(observed.seconds) == [70.0, 90.0]  # the censored start is left out


def test_load_frame_counts_by_minute() -> None:
    requests = Requests(
        START + np.array([0.0, 59.9, 60.0, 200.0]), np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8])
    )
    frame = validate_load(load_frame("a/a", requests, START, START + 190.0), "here")
    assert frame.requests.to_list() == [2.0, 1.0, 0.0]  # 190 s hold three whole minutes
    assert frame.input_tokens.to_list() == [3.0, 3.0, 0.0]
    assert frame.output_tokens.to_list() == [11.0, 7.0, 0.0]


def test_simulated_history_keeps_the_contract_and_ends_before_the_case(
    case: Case, tmp_path: Path
) -> None:
    arrivals = Arrivals({"prod/code": steady(12.0, 3600.0)}, START, START + 3600.0)
    simulate_history(case, arrivals, tmp_path)
    load = validate_load(pd.read_parquet(tmp_path / "load.parquet"), "load")
    serving = validate_serving(pd.read_parquet(tmp_path / "serving.parquet"), "serving")
    starts = validate_startups(pd.read_parquet(tmp_path / "startups.parquet"), "startups")
    judged = pd.Timestamp(case.since_seconds, unit="s", tz="UTC")
    assert load.ts.max() == judged - pd.Timedelta("60s")
    assert serving.ts.max() == judged - pd.Timedelta("30s")
    assert len(serving) == 60  # half an hour of 30 s
    assert serving.arrival_rate_rps.mean() == pytest.approx(12.0, rel=0.1)
    assert serving.ttft_p95_seconds.notna().all()
    assert (starts.created_ts < judged).all()


def test_cut_history_forgets_what_was_not_known_yet(case: Case, tmp_path: Path) -> None:
    arrivals = Arrivals({"prod/code": steady(12.0, 3600.0)}, START, START + 3600.0)
    simulate_history(case, arrivals, tmp_path / "whole")
    until = START + 900.0
    cut_history(tmp_path / "whole", until, tmp_path / "part")
    at = pd.Timestamp(until, unit="s", tz="UTC")
    load = pd.read_parquet(tmp_path / "part" / "load.parquet")
    assert len(load) == 15
    starts = pd.read_parquet(tmp_path / "part" / "startups.parquet")
    assert (starts.created_ts < at).all()
    assert not (starts.ready_ts >= at).any()


def no_training(telemetry: Path, models: Path) -> None:
    raise AssertionError(f"nothing is learned without Foreserve: {telemetry}, {models}")


def test_a_comparison_of_rivals_in_other_processes(policies: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    scenario = scenario_of(
        policies,
        meanRequestsPerSecond=3,
        judgedHours=1,
        autoscalers=["static", {"name": "hpa", "setting": 2.0}, "clairvoyant"],
    )
    got = compare(
        scenario,
        work=tmp_path,
        train=no_training,
        progress=lambda *step: said.append(step),
        workers=2,
    )
    assert [r.name for r in got.runs] == ["static", "hpa", "clairvoyant"]
    static, hpa, _ = got.runs
    assert static.tuned
    assert static.tried <= 5
    assert got.met(static)
    assert (hpa.tuned, hpa.tried) == (False, 1)
    assert hpa.setting == "2 requests a replica, 60 s mean"
    assert static.measures.requests == hpa.measures.requests  # the same world
    report = report_json(got)
    assert report["scenario"]["judgedHours"] == 1.0
    json.dumps(report, allow_nan=False)
    assert said[-1][1] == said[-1][2]


def test_foreserve_needs_hours_before_those_that_are_judged(policies: Path, tmp_path: Path) -> None:
    scenario = scenario_of(policies, judgedHours=144, autoscalers=["foreserve", "static"])
    with pytest.raises(ScenarioError, match="nothing precedes them"):
        compare(scenario, work=tmp_path, train=no_training, progress=lambda *_: None)


def train_for_real(telemetry: Path, models: Path) -> None:
    from training.train import train

    train(telemetry, models)


@pytest.mark.slow
def test_foreserve_runs_on_a_trace_and_on_the_telemetry_and_models_that_it_left(
    policies: Path, tmp_path: Path
) -> None:
    whole = read_bundled("azure2024_code_10min.csv")
    whole.tail(2 * 144).to_csv(
        tmp_path / "trace.csv", index=False
    )  # two days are soon learned from
    autoscalers = ["foreserve", {"name": "static", "setting": 3}]
    small: dict[str, object] = {
        "meanRequestsPerSecond": 1,
        "judgedHours": 1,
        "autoscalers": autoscalers,
    }
    small["trace"] = str(tmp_path / "trace.csv")
    work = tmp_path / "work"

    def run(**changes: object) -> Comparison:
        scenario = scenario_of(policies, **{**small, **changes})
        return compare(
            scenario, work=work, train=train_for_real, progress=lambda *_: None, workers=1
        )

    first = run()
    ours = first.runs[0]
    assert ours.name == "foreserve"
    assert ours.series.forecast_p95_rps.notna().mean() > 0.9
    assert (ours.series.forecast_p10_rps <= ours.series.forecast_p95_rps).all()
    assert set(ours.series.reason) <= {reason.value for reason in Reason}
    changes = {"trace": None, "profile": None, "startup": None, "judgedHours": 0.5}
    told = run(telemetry=work / "telemetry", models=work / "models", **changes)
    assert told.runs[0].measures.requests > 0
    assert "The models were given" in told.notes[0]
    for rest in ("serving.parquet", "startups.parquet"):
        (work / "telemetry" / rest).rename(work / rest)
    changes = {"trace": None, "startup": None, "judgedHours": 0.5, "autoscalers": ["foreserve"]}
    again = scenario_of(policies, **{**small, **changes, "telemetry": work / "telemetry"})
    bare = compare(
        again, work=tmp_path / "bare", train=train_for_real, progress=lambda *_: None, workers=1
    )
    assert "The telemetry tells of load alone" in bare.notes[0]
    assert (tmp_path / "bare" / "telemetry" / "serving.parquet").exists()


@pytest.mark.parametrize("name", [n for n in RANGES if n not in ("static", "clairvoyant")])
def test_every_rival_serves_a_load_it_is_set_up_for(case: Case, name: str) -> None:
    setting, search = searches(case, name, 3)[0]
    safe = drive(case, make_rival(case, replace(setting, value=search.safe)))
    lean = drive(case, make_rival(case, replace(setting, value=search.lean)))
    assert safe.services["prod/code"].slo_attainment_ratio > 0.9
    assert lean.services["prod/code"].gpu_hours <= safe.services["prod/code"].gpu_hours
    assert setting.words()


def test_todays_fleet_is_driven_as_telemetry_recorded_it(
    case: Case, policies: Path, tmp_path: Path
) -> None:
    arrivals = Arrivals({"prod/code": steady(12.0, 5400.0)}, START, START + 5400.0)
    engines = {("prod/code", "h100"): PROFILE}
    later = build_case(scenario_of(policies), load_policies([policies]), arrivals, engines)
    simulate_history(later, arrivals, tmp_path)  # serving.parquet from START to START + 3600
    ran = recorded_fleet(tmp_path, START + 1800.0, START + 3600.0)
    since, counts = ran["prod/code"]["h100"]
    assert (since[0], since[-1]) == (START + 1800.0, START + 3570.0)
    mine = {"prod/code": replace(case.services["prod/code"], recorded=ran["prod/code"])}
    got = drive(replace(case, services=mine), make_rival(case, Setting("static", 1.0)))
    assert got.max_replicas <= 2
    known = replace(case, services=mine)
    series = drive(known, make_rival(known, Setting("recorded", 1.0))).series
    wanted = [counts[np.searchsorted(since, at, side="right") - 1] for at in series.ts_seconds]
    assert series.desired_replicas.to_list() == wanted
    assert recorded_fleet(tmp_path / "nowhere", 0.0, 1.0) == {}


def test_what_nobody_recorded_is_said_and_not_left_out(policies: Path, tmp_path: Path) -> None:
    asked = ["recorded", {"name": "static", "setting": 3}]
    small = {"meanRequestsPerSecond": 1, "judgedHours": 0.5, "autoscalers": asked}
    got = compare(
        scenario_of(policies, **small),
        work=tmp_path,
        train=no_training,
        progress=lambda *_: None,
        workers=1,
    )
    assert [r.name for r in got.runs] == ["static"]
    assert got.gaps[0].startswith("Today's fleet could not be computed: telemetry records no")
    with pytest.raises(ScenarioError, match="recorded alone"):
        compare(
            scenario_of(policies, **{**small, "autoscalers": ["recorded"]}),
            work=tmp_path,
            train=no_training,
            progress=lambda *_: None,
        )
