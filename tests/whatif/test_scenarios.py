"""The scenarios that ship are valid, and each one's variations do what the file says, on a short hour."""

from pathlib import Path
from typing import Any

import pytest

from autoscaler.edge.policy_files import load_policies
from autoscaler.whatif.arrivals import read_arrivals, read_trace
from autoscaler.whatif.changes import changed_policies
from autoscaler.whatif.compare import compare
from autoscaler.whatif.results import Measures
from autoscaler.whatif.scenario import AutoscalerSpec, load_scenario

FOLDER = Path(__file__).parents[2] / "docs" / "scenarios"
FILES = sorted(FOLDER.glob("*.yaml"))
READY = [path for path in FILES if path.name != "policies.yaml"]
# what a static fleet of three shows of each variation: (more is worse) cost, missed
Shown = dict[str, tuple[str, str]]
EXPECTED: dict[str, Shown] = {
    "right-size-slo": {
        "ttftSeconds 1": ("same", "more"),
        "ttftSeconds 5": ("same", "less or same"),
        "attainment 0.95": ("same", "same"),
        "attainment 0.999": ("same", "same"),
    },
    "another-gpu": {"A100": ("less", "more")},
    "add-spot": {"spotShare 0.3": ("less", "any"), "spotShare 0.6": ("less", "any")},
    "shorten-start-up": {
        "startupSeconds 30": ("any", "any"),
        "startupSeconds 90": ("any", "any"),
        "startupSeconds 300": ("any", "any"),
    },
    "traffic-x2": {"trafficFactor 0.5": ("any", "less"), "trafficFactor 2": ("any", "more")},
    "merge-pools": {"one pool": ("same", "same")},
}


def test_there_are_six() -> None:
    assert {path.stem for path in READY} == set(EXPECTED)


def beside(value: float, base: float) -> str:
    if value == pytest.approx(base, rel=1e-9, abs=1e-12):
        return "same"
    return "more" if value > base else "less"


@pytest.mark.parametrize("path", READY, ids=lambda p: p.stem)
def test_a_ready_scenario_runs_and_its_variations_do_what_it_says(
    path: Path, tmp_path: Path
) -> None:
    scenario = load_scenario(path)
    assert scenario.seeds == 3
    changes: dict[str, Any] = {
        "judged_hours": 0.5,
        "warm_up_seconds": 300.0,
        "seeds": 1,
        "initial_replicas": 3,
        "autoscalers": (AutoscalerSpec(name="static", setting=3.0),),
    }
    if scenario.mean_requests_per_second is not None:
        changes["mean_requests_per_second"] = 4.0
    got = compare(
        scenario.model_copy(update=changes),
        work=tmp_path,
        train=lambda *_: None,
        progress=lambda *_: None,
        workers=1,
    )
    assert [v.gap for v in got.variations] == [None] * len(got.variations)
    base = got.runs[0].measures
    shown = {v.label: v.runs[0].measures for v in got.variations}
    expected = EXPECTED[path.stem]
    assert set(shown) == set(expected)
    for label, (cost, missed) in expected.items():
        found: Measures = shown[label]
        assert cost == "any" or beside(found.cost_usd, base.cost_usd) == cost, label
        worse = beside(1 - found.slo_attainment_ratio, 1 - base.slo_attainment_ratio)
        assert missed == "any" or worse in missed.split(" or "), (label, found, base)


def test_one_pool_has_the_quotas_of_both() -> None:
    scenario = load_scenario(FOLDER / "merge-pools.yaml")
    (change,) = scenario.changes
    merged = changed_policies(load_policies([scenario.policies]), change, scenario)
    quotas = {c.name: c.quota_count for pool in merged.pools for c in pool.classes}
    assert quotas["shared"] == 56
    classes = {v.accelerator_class for p in merged.services.values() for v in p.variants}
    assert classes == {"shared"}


def test_the_two_teams_are_the_bundled_trace_nine_hours_apart() -> None:
    arrivals = read_arrivals(load_scenario(FOLDER / "merge-pools.yaml"), ["east/code", "west/code"])
    trace = read_trace("bundled:azure2024-code")
    seconds = arrivals.end_seconds - arrivals.start_seconds
    assert seconds == 600.0 * len(trace)
    for requests in arrivals.services.values():
        assert len(requests.arrive_seconds) / seconds == pytest.approx(4.0, rel=0.01)
