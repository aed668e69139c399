"""Tuning: what is tried, what counts as better, and what is said when it is noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import SERVICE, measures, series
from test_changes import POLICIES

from autoscaler.cli.tune import document_of, patch_of
from autoscaler.core.types import ScalingLimit
from autoscaler.policy import parse_policies
from autoscaler.whatif.run import Driven
from autoscaler.whatif.scenario import Scenario, ScenarioError
from autoscaler.whatif.tune import (
    GENTLE,
    Difference,
    Knobs,
    Tried,
    Tuned,
    _better,
    _cheaper,
    judge,
    pick,
    split,
    together,
    tune,
    variations,
)
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel
from training.registry import write_generation

TODAY = Knobs(0.99, 300.0, 0.0, ())
QUICK = replace(TODAY, settle_down_seconds=60.0)
LEAN = replace(TODAY, aim=0.986)
NOTHING = Difference(0.0, 0.0)


def tried(
    knobs: Knobs,
    usd: float = 100.0,
    attained: float = 0.992,
    *,
    error: float = 0.1,
    better: Difference = NOTHING,
) -> Tried:
    """A run of settings that cost 100 $/h today."""
    got = measures(slo_attainment_ratio=attained)
    return Tried(knobs, got, usd, Difference(100.0 - usd, error), better)


def driven(factor: float, attained: float = 0.992, *, noise: float = 0.0) -> Driven:
    frame = series(1.0)
    jitter = 1.0 + noise * np.random.default_rng(3).standard_normal(len(frame) // 480).repeat(480)
    frame["cost_usd"] *= factor * jitter
    frame["slo_attainment_ratio"] = attained
    return Driven({SERVICE: measures()}, 10, frame)


def test_every_knob_is_varied_alone() -> None:
    got = variations(TODAY)
    assert len(got) == len(set(got)) == 6
    for knobs in got:
        assert sum(getattr(knobs, f) != getattr(TODAY, f) for f in Knobs.__slots__) == 1
    assert {k.aim for k in got} == {0.99, 0.993, 0.986}  # 0.7 and 1.4 times 1 % missed
    assert {k.settle_down_seconds for k in got} == {300.0, 60.0, 900.0}


@pytest.mark.parametrize(
    ("judged", "fit", "validation"),
    [(24.0, 16.0, 8.0), (48.0, 24.0, 24.0), (96.0, 72.0, 24.0), (144.0, 96.0, 48.0)],
)
def test_whole_days_are_kept_for_validation(judged: float, fit: float, validation: float) -> None:
    assert split(judged) == (fit, validation)


def test_too_few_hours_are_refused() -> None:
    with pytest.raises(ScenarioError, match="judgedHours: 3; allowed: 6 or more"):
        split(3.0)


def test_a_difference_is_one_of_pairs_of_blocks() -> None:
    # 3 % less in every block: what both share cancels, and 3 % is sure although hours differ threefold
    saved = _cheaper(driven(1.0), driven(0.97))
    today = driven(1.0).series.cost_usd.sum() / 24.0
    assert saved.mean == pytest.approx(0.03 * today, rel=0.01)
    assert saved.sure
    # 1 % less in the mean, each block 20 % up or down: nothing is known
    assert not _cheaper(driven(1.0), driven(0.99, noise=0.2)).sure
    assert _better(driven(1.0, 0.990), driven(1.0, 0.995)).mean == pytest.approx(0.005, rel=0.02)


def test_few_blocks_prove_nothing() -> None:
    short = [replace(d, series=d.series.iloc[: 4 * 240]) for d in (driven(1.0), driven(0.5))]
    assert not _cheaper(*short).sure


def test_what_helps_alone_is_tried_together() -> None:
    fit = [
        tried(TODAY),
        tried(QUICK, 95.0),
        tried(LEAN, 97.0),
        tried(replace(TODAY, down_limits=GENTLE), 103.0),
    ]
    assert together(fit, 0.99) == replace(QUICK, aim=0.986)
    # noise and what misses the SLO are left out
    fit = [tried(TODAY), tried(QUICK, 95.0, error=5.0), tried(LEAN, 90.0, attained=0.98)]
    assert together(fit, 0.99) == TODAY


def test_the_cheapest_that_meets_is_picked_unless_it_is_noise() -> None:
    fit = [tried(TODAY), tried(QUICK, 95.0), tried(LEAN, 90.0, attained=0.98)]
    assert pick(fit, 0.99) == QUICK
    assert pick([tried(TODAY), tried(QUICK, 99.9)], 0.99) == TODAY
    # today's misses: what surely attains more and meets is picked although it costs more
    safe = replace(TODAY, aim=0.993)
    fit = [tried(TODAY, attained=0.985), tried(safe, 108.0, better=Difference(0.006, 0.001))]
    assert pick(fit, 0.99) == safe
    fit = [tried(TODAY, attained=0.985), tried(safe, 108.0, better=Difference(0.006, 0.01))]
    assert pick(fit, 0.99) == TODAY


@pytest.mark.parametrize(
    ("after", "keeps", "says"),
    [
        (tried(QUICK, 95.0), False, "5.0% cheaper on the validation hours, too"),
        (tried(QUICK, 95.0, error=9.0), True, "within noise on the validation hours"),
        (tried(QUICK, 95.0, attained=0.97), True, "misses the SLO on the validation hours"),
    ],
    ids=["holds", "noise", "misses"],
)
def test_later_hours_have_the_last_word(after: Tried, keeps: bool, says: str) -> None:
    fit = [tried(TODAY), tried(QUICK, 95.0)]
    chosen, verdict = judge(fit, [tried(TODAY), after], 0.99)
    assert chosen == (TODAY if keeps else QUICK)
    assert says in verdict


def test_without_a_candidate_nothing_changes() -> None:
    chosen, verdict = judge([tried(TODAY)], [tried(TODAY)], 0.99)
    assert chosen == TODAY
    assert verdict.startswith("nothing that was tried is better")


def tuned(chosen: Knobs) -> Tuned:
    fit, late = (tried(TODAY), tried(QUICK, 95.0)), (tried(TODAY), tried(QUICK, 95.0))
    return Tuned(SERVICE, 0.99, TODAY, chosen, fit, late, 16.0, 8.0, "5.0% cheaper", ())


def test_the_patch_is_what_the_policy_reads_back() -> None:
    limits = (ScalingLimit(percent=True, value=10.0, period_seconds=60.0),)
    chosen = Knobs(0.986, 60.0, 60.0, limits)
    text = patch_of(tuned(chosen))
    assert "kubectl -n prod patch scalingpolicy code --type merge" in text
    document = {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "ScalingPolicy",
        "metadata": {"name": "code", "namespace": "prod"},
        "spec": {
            "model": "m",
            "slo": {"objectives": [{"metric": "ttft", "targetSeconds": 1.0}], "attainment": 0.99},
            "variants": [
                {
                    "name": "h100",
                    "acceleratorClass": "h100",
                    "acceleratorsPerReplica": 1,
                    "minReplicas": 1,
                    "maxReplicas": 4,
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "code"},
                }
            ],
        },
    }
    spec, patch = document["spec"], yaml.safe_load(text)["spec"]
    assert isinstance(spec, dict)
    spec["slo"] |= patch["slo"]
    spec["behavior"] = patch["behavior"]
    policy = parse_policies([("patched", yaml.safe_dump(document))]).services[SERVICE]
    assert Knobs.of(policy) == chosen


def test_nothing_to_apply_is_said_and_everything_tried_is_told() -> None:
    assert patch_of(tuned(TODAY)) == ""
    told = document_of(tuned(QUICK))
    assert told["patch"] == {
        "spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}
    }
    assert [row["settings"] for row in told["fit"]["tried"]] == [
        "as it is",
        "scaleDown window 60 s",
    ]
    assert told["fit"]["tried"][1]["cheaper_usd_per_hour"] == 5.0


def train_nothing(telemetry: Path, models: Path) -> None:
    """Write models that know nothing, once there is a history to learn from."""
    assert (telemetry / "serving.parquet").exists()
    parts = {
        "latency": LatencyModel((), np.zeros((0, 0)), {}).to_files(),
        "lead_time": LeadTimeModel({}).to_files(),
    }
    files = {f"{part}/{name}": data for part, held in parts.items() for name, data in held.items()}
    write_generation(models, files, {}, None)


def test_a_policy_is_tuned_on_its_own_hours(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    scenario = Scenario.model_validate(
        {
            "name": "small",
            "trace": "bundled:azure2024-code",
            "profile": "llama2-70b-h100-80gb-tp4",
            "policies": tmp_path / "policies.yaml",
            "meanRequestsPerSecond": 0.2,
            "startup": {"medianSeconds": 60, "sigma": 0.1},
            "judgedHours": 6,
            "warmUpSeconds": 300,
            "tickSeconds": 300,
        }
    )
    said: list[tuple[str, int, int]] = []
    found = tune(
        scenario,
        None,
        work=tmp_path / "work",
        train=train_nothing,
        progress=lambda *step: said.append(step),
        workers=1,
    )
    assert (found.fit_hours, found.validation_hours) == (4.0, 2.0)
    assert len(found.fit) == 1 + len(variations(found.today))
    assert all(t.measures.requests > 0 for t in (*found.fit, *found.validation))
    # two blocks of two hours prove nothing: today's settings stay
    assert found.chosen == found.today
    assert len(found.validation) == 1
    assert said[-1][1] == said[-1][2]
    with pytest.raises(ScenarioError, match="no policy for 'prod/none'"):
        tune(
            scenario,
            "prod/none",
            work=tmp_path / "work",
            train=train_nothing,
            progress=lambda *_: None,
        )
