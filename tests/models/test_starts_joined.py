"""Starts of two sources: each start counts once."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.frames import validate_startups
from models.starts import UID, joined

T0 = 1_795_759_200.0
Row = tuple[float, float]  # created and ready, seconds after T0; ready NaN: never


def starts(
    rows: list[Row], *, variant: str = "h100", uids: list[str] | None = None
) -> pd.DataFrame:
    created = pd.to_datetime([T0 + c for c, _ in rows], unit="s", utc=True)
    ready = pd.to_datetime(
        pd.Series([T0 + r for _, r in rows], dtype="float64"), unit="s", utc=True
    )
    frame = pd.DataFrame(
        {"service": "prod/chat", "variant": variant, "created_ts": created, "ready_ts": ready.array}
    )
    if uids is not None:
        frame[UID] = uids
    return validate_startups(frame, "test")


def told(frame: pd.DataFrame) -> list[Row]:
    """Return created and ready in seconds after T0, ready -1 where it never came."""
    zero = pd.Timestamp(T0, unit="s", tz="UTC")
    created = (frame.created_ts - zero).dt.total_seconds()
    ready = (frame.ready_ts - zero).dt.total_seconds().fillna(-1.0)
    return sorted(zip(created.round(3), ready.round(3), strict=True))


NEVER = math.nan


@pytest.mark.parametrize(
    ("ingested", "watched", "expected"),
    [
        pytest.param([(0, 90)], [(500, 600)], [(0, 90), (500, 600)], id="different starts"),
        pytest.param([(0, 90)], [(1, 91)], [(1, 91)], id="rounded differently: one start"),
        pytest.param([(0, 90)], [(2, 90)], [(2, 90)], id="2 s apart is the same"),
        pytest.param([(0, 90)], [(3, 90)], [(0, 90), (3, 90)], id="3 s apart is another"),
        pytest.param(
            [(0, NEVER)], [(0, 120)], [(0, 120)], id="ingestion ended before it was ready"
        ),
        # a scale-up of three in one second: the watched one is the slow one, the other two stay
        pytest.param(
            [(0, 80), (0, 90), (0, 300)],
            [(0, 301)],
            [(0, 80), (0, 90), (0, 301)],
            id="siblings of one scale-up",
        ),
        pytest.param(
            [(0, 80), (0, NEVER)], [(1, NEVER)], [(0, 80), (1, -1)], id="the one that never came"
        ),
        pytest.param([], [(0, 90)], [(0, 90)], id="nothing ingested"),
        pytest.param([(0, 90)], [], [(0, 90)], id="nothing watched"),
    ],
)
def test_each_start_counts_once(
    ingested: list[Row], watched: list[Row], expected: list[Row]
) -> None:
    uids = [f"pod-{n}" for n in range(len(watched))]
    assert told(joined(starts(ingested), starts(watched, uids=uids))) == expected


def test_where_both_know_the_pod_its_uid_decides() -> None:
    ingested = starts([(0, 90), (0, 91)], uids=["a", "b"])
    watched = starts([(60, 90), (0, 91)], uids=["a", "c"])
    # a: the same pod, whatever its times say; b and c: two pods, whatever theirs say
    assert told(joined(ingested, watched)) == [(0, 91), (0, 91), (60, 90)]


def test_another_variant_is_another_start() -> None:
    assert len(joined(starts([(0, 90)]), starts([(0, 90)], variant="l40s", uids=["a"]))) == 2


seconds = st.integers(0, 12)
times = st.lists(st.tuples(seconds, seconds.map(lambda s: 20.0 + s)), max_size=12)


@given(times, times)
def test_no_watched_start_is_lost_and_none_replaces_two(
    ingested: list[Row], watched: list[Row]
) -> None:
    uids = [f"pod-{n}" for n in range(len(watched))]
    both = joined(starts(ingested), starts(watched, uids=uids))
    assert max(len(ingested), len(watched)) <= len(both) <= len(ingested) + len(watched)
    if watched:
        assert set(uids) <= set(both[UID])


@given(times)
def test_what_both_saw_alike_is_there_once(rows: list[Row]) -> None:
    uids = [f"pod-{n}" for n in range(len(rows))]
    both = joined(starts(rows), starts(rows, uids=uids))
    assert told(both) == told(starts(rows))
