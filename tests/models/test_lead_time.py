import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.frames import validate_startups
from models.lead_time import LeadTimeError, LeadTimeModel
from models.start_curves import GRID, NEW, THERE, survival

EPOCH = pd.Timestamp("2025-06-01", tz="UTC")
END = EPOCH.timestamp() + 86_400.0


def starts(
    seconds: list[float | None], service: str = "prod/chat", variant: str = "h100"
) -> pd.DataFrame:
    """A start a minute; None: never became ready, still starting at the end."""
    rows = []
    for n, took in enumerate(seconds):
        created = EPOCH + pd.Timedelta(minutes=n)
        ready = pd.NaT if took is None else created + pd.Timedelta(seconds=took)
        rows.append((service, variant, created, ready))
    return pd.DataFrame(rows, columns=["service", "variant", "created_ts", "ready_ts"])


def fit(frame: pd.DataFrame, end_seconds: float = END) -> LeadTimeModel:
    return LeadTimeModel.fit(validate_startups(frame, "startups"), end_seconds=end_seconds)


def test_kaplan_meier_by_hand() -> None:
    # four starts in the cells 10, 20, 30, 40; the one in 20 is censored; no prior:
    # S(10) = 3/4, S(20) = 3/4, S(30) = 3/4 * (1 - 1/2) = 3/8, S(40) = 0
    counts = np.zeros((2, len(GRID)), dtype=np.int64)
    counts[0, [10, 30, 40]] = 1
    counts[1, 20] = 1
    curve = survival(counts, np.ones(len(GRID)), 0.0)
    assert curve[[9, 10, 20, 30, 40]] == pytest.approx([1.0, 0.75, 0.75, 0.375, 0.0])


def test_many_starts_outweigh_the_prior() -> None:
    rng = np.random.default_rng(5)
    took = 80.0 * np.exp(rng.normal(0.0, 0.2, 600))
    model = fit(starts(took.tolist()))
    for q in (0.1, 0.5, 0.9, 0.95):
        assert model.quantile_seconds("prod/chat", "h100", q) == pytest.approx(
            np.quantile(took, q), rel=0.07
        )


def test_a_start_that_never_ended_is_not_short() -> None:
    seconds: list[float | None] = [60.0] * 20
    sure = fit(starts(seconds)).quantile_seconds("prod/chat", "h100", 0.9)
    stuck = fit(starts([*seconds, *[None] * 5])).quantile_seconds("prod/chat", "h100", 0.9)
    assert stuck > 3 * sure


def test_given_up_early_says_little() -> None:
    frame = starts([60.0] * 20 + [None] * 20)
    gone = frame.created_ts + pd.Timedelta(seconds=5)
    frame["ended_ts"] = gone.where(frame.ready_ts.isna(), pd.NaT)
    model = fit(frame)
    assert model.quantile_seconds("prod/chat", "h100", 0.5) == pytest.approx(60.0, rel=0.1)
    assert model.scores["prod/chat/h100"]["censored"] == 20


def test_what_happened_after_the_end_is_not_known() -> None:
    frame = starts([600.0] * 10)
    model = fit(frame, end_seconds=EPOCH.timestamp() + 300.0)
    # five starts were created by then, none was ready
    assert model.scores["prod/chat/h100"] | {"p50_seconds": 0, "p95_seconds": 0} == {
        "starts": 6,
        "censored": 6,
        "p50_seconds": 0,
        "p95_seconds": 0,
    }


def test_without_starts_the_prior_speaks() -> None:
    model = fit(starts([]))
    assert model.quantile_seconds("any", "thing", 0.5) == pytest.approx(150.0, rel=0.01)
    # 150 * exp(0.75 * 1.6449) = 515
    assert model.quantile_seconds("any", "thing", 0.95) == pytest.approx(515.0, rel=0.02)


def test_few_starts_lean_on_the_variant_then_the_fleet() -> None:
    slow = starts([400.0] * 100, service="prod/a", variant="h200")
    fast = starts([50.0] * 100, service="prod/b", variant="l4")
    new = starts([50.0], service="prod/c", variant="h200")
    model = fit(pd.concat([slow, fast, new], ignore_index=True))
    assert model.quantile_seconds("prod/c", "h200", 0.9) == pytest.approx(400.0, rel=0.1)
    assert model.quantile_seconds("prod/new", "h200", 0.5) == pytest.approx(400.0, rel=0.1)
    assert 45 < model.quantile_seconds("prod/new", "mi300", 0.5) < 420


def test_files_round_trip_and_refusals() -> None:
    model = fit(starts([60.0, 70.0, None, 300.0]))
    files = model.to_files()
    again = LeadTimeModel.from_files(files)
    assert again.to_files() == files
    assert again.scores == model.scores
    with pytest.raises(LeadTimeError, match="missing"):
        LeadTimeModel.from_files({})
    with pytest.raises(LeadTimeError, match="format 9"):
        LeadTimeModel.from_files({"lead_time.json": b'{"format": 9}'})
    with pytest.raises(LeadTimeError, match="between 0 and 1"):
        model.quantile_seconds("prod/chat", "h100", 1.0)


def test_files_of_many_pairs_stay_small() -> None:
    frame = pd.concat(
        [starts([60.0, 90.0, 200.0], service=f"s/{n}") for n in range(200)], ignore_index=True
    )
    assert len(fit(frame).to_files()["lead_time.json"]) < 200 * 180


def test_starts_age() -> None:
    # forty starts of 300 s eight weeks ago (1/16 each), twenty of 60 s now: the old ones count as 2.5
    old, new = starts([300.0] * 40), starts([60.0] * 20)
    new["created_ts"] += pd.Timedelta(days=56)
    new["ready_ts"] += pd.Timedelta(days=56)
    both = pd.concat([old, new], ignore_index=True)
    model = fit(both, END + 56 * 86_400.0)
    assert model.quantile_seconds("prod/chat", "h100", 0.6) == pytest.approx(60.0, rel=0.1)
    assert model.scores["prod/chat/h100"]["starts"] == 60
    # what did not scale for weeks is not forgotten: age counts from the pair's own last start
    idle = fit(old, END + 56 * 86_400.0)
    assert idle.quantile_seconds("prod/chat", "h100", 0.6) == pytest.approx(300.0, rel=0.1)


def test_never_below_what_was_just_seen() -> None:
    took: list[float | None] = [60.0] * 200
    usual = fit(starts(took)).quantile_seconds("prod/chat", "h100", 0.9)
    assert usual < 75.0
    model = fit(starts([*took, 500.0]))
    assert model.quantile_seconds("prod/chat", "h100", 0.9) == 500.0
    assert model.quantile_seconds("prod/chat", "h100", 0.5) < 75.0  # typical is still typical
    assert LeadTimeModel.from_files(model.to_files()).to_files() == model.to_files()
    # a later start that is quick again, or a day without any, ends it
    assert fit(starts([*took, 500.0, 60.0])).quantile_seconds("prod/chat", "h100", 0.9) < 75.0
    later = fit(starts([*took, 500.0]), END + 2 * 86_400.0)
    assert later.quantile_seconds("prod/chat", "h100", 0.9) < 75.0


def test_the_last_start_is_the_later_of_two_sources() -> None:
    trained = fit(starts([60.0] * 50))
    watched = starts([400.0])
    watched["created_ts"] += pd.Timedelta(hours=5)
    watched["ready_ts"] += pd.Timedelta(hours=5)
    both = trained.with_more(fit(watched, END))
    assert both.scores["prod/chat/h100"]["starts"] == 50
    assert both.quantile_seconds("prod/chat", "h100", 0.9) == 400.0


def test_a_new_node_is_another_start() -> None:
    took = [60.0, 70.0, 65.0, 600.0] * 25
    frame = starts(took)
    frame["phase_schedule_seconds"] = [0.4, 1.0, np.nan, 240.0] * 25
    model = fit(frame)

    def median(node: str) -> float:
        return model.quantile_seconds("prod/chat", "h100", 0.5, node=node)

    assert median(THERE) == pytest.approx(65.0, rel=0.1)
    assert median(NEW) == pytest.approx(600.0, rel=0.15)
    score = model.scores["prod/chat/h100"]
    assert score["node_there_p50_seconds"] == round(median(THERE), 2)
    assert score["node_new_p50_seconds"] == round(median(NEW), 2)
    assert LeadTimeModel.from_files(model.to_files()).scores == model.scores
    # another service of the variant borrows; nothing known at all is the prior: 450 s
    assert model.quantile_seconds("prod/x", "h100", 0.5, node=NEW) > 400.0
    nothing = fit(starts([]))
    assert nothing.quantile_seconds("a", "b", 0.5, node=NEW) == pytest.approx(450.0, rel=0.02)
    assert nothing.quantile_seconds("a", "b", 0.5, node=THERE) == pytest.approx(75.0, rel=0.02)
    with pytest.raises(LeadTimeError, match="node 'cold'; allowed: any, there, new"):
        median("cold")


def by_node(seconds: list[float], waited: list[float], **where: str) -> pd.DataFrame:
    frame = starts(list(seconds), **where)
    frame["phase_schedule_seconds"] = waited
    return frame


def test_few_starts_on_a_node_that_is_there_lean_on_those_of_the_variant_and_on_the_prior() -> None:
    # a hundred warm starts of another service at 40 s; one of this one at 200 s
    usual = by_node([40.0] * 100, [1.0] * 100, service="prod/b")
    model = fit(pd.concat([usual, by_node([200.0], [1.0])], ignore_index=True))
    q = model.quantile_seconds("prod/chat", "h100", 0.5, node=THERE)
    assert 38.0 < q < 60.0
    # three alone: the prior of such nodes (75 s) still speaks, not that of the mix (150 s)
    alone = fit(by_node([40.0] * 3, [1.0] * 3)).quantile_seconds(
        "prod/chat", "h100", 0.5, node=THERE
    )
    assert 40.0 < alone < 75.0


def test_a_node_state_is_known_from_three_starts_that_tell_it() -> None:
    two = fit(by_node([40.0] * 2 + [500.0], [1.0] * 2 + [200.0]))
    assert not two.knows_node("h100", THERE)
    three = fit(by_node([40.0] * 3 + [500.0], [1.0] * 3 + [200.0]))
    assert three.knows_node("h100", THERE)
    assert not three.knows_node("h100", NEW)
    assert not three.knows_node("l4", THERE)
    assert not fit(starts([40.0] * 50)).knows_node("h100", THERE)  # no phases
    # starts of half a year ago count as next to nothing beside one of now
    old = by_node([40.0] * 50, [1.0] * 50)
    now = by_node([500.0], [200.0])
    now["created_ts"] += pd.Timedelta(days=180)
    now["ready_ts"] += pd.Timedelta(days=180)
    aged = fit(pd.concat([old, now], ignore_index=True), END + 180 * 86_400.0)
    assert not aged.knows_node("h100", THERE)


def test_what_was_just_seen_counts_on_such_nodes() -> None:
    took, waited = [60.0, 600.0] * 60, [1.0, 200.0] * 60

    def upper(last: float, waits: float, node: str) -> float:
        frame = by_node([*took, last], [*waited, waits])
        model = fit(frame)
        assert LeadTimeModel.from_files(model.to_files()).to_files() == model.to_files()
        return model.quantile_seconds("prod/chat", "h100", 0.9, node=node)

    assert upper(300.0, 1.0, THERE) == 300.0
    assert upper(300.0, np.nan, THERE) == 300.0  # it may have been such a node
    assert upper(2000.0, 400.0, THERE) < 90.0  # that was another one
    assert upper(2000.0, 400.0, NEW) == 2000.0
    assert upper(60.0, 1.0, NEW) < 900.0


def test_a_new_node_is_never_quicker_than_the_mix() -> None:
    # by luck the three starts that waited for a node were quick ones
    model = fit(by_node([100.0] * 40 + [30.0] * 3, [1.0] * 40 + [25.0] * 3))
    for q in (0.5, 0.9):
        mix = model.quantile_seconds("prod/chat", "h100", q)
        assert model.quantile_seconds("prod/chat", "h100", q, node=NEW) >= mix


def test_files_from_before_nodes_were_told_apart_are_read() -> None:
    model = fit(by_node([60.0] * 5 + [500.0], [1.0] * 5 + [300.0]))
    document = json.loads(model.to_files()["lead_time.json"])
    for pair in document["pairs"]:
        for name in ("latest_there", "latest_new"):
            pair.pop(name, None)
    old = LeadTimeModel.from_files({"lead_time.json": json.dumps(document).encode()})
    # which node the last start had is not told: it counts on those that are there, to be safe
    assert old.quantile_seconds("prod/chat", "h100", 0.9, node=THERE) == 500.0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0.0, 20_000.0)), max_size=30),
    st.floats(0.01, 0.98),
)
def test_quantiles_are_finite_and_increase(seconds: list[float | None], q: float) -> None:
    model = fit(starts(seconds))
    low = model.quantile_seconds("prod/chat", "h100", q)
    high = model.quantile_seconds("prod/chat", "h100", q + 0.01)
    assert math.isfinite(low)
    assert 0 < low <= high
