"""A few impossible rows are gaps and are said; many are refused by validate_load, in one sentence."""

import numpy as np
import pandas as pd
import pytest

from models.frames import FrameError, validate_load
from models.mend import mend_load

START = pd.Timestamp("2026-01-03", tz="UTC")


def load(rows: int = 400, service: str = "prod/chat") -> pd.DataFrame:
    at = START + pd.to_timedelta(np.arange(rows), unit="min")
    return pd.DataFrame(
        {
            "ts": at,
            "service": service,
            "requests": np.arange(rows) + 10.0,
            "input_tokens": 1000.0,
            "output_tokens": 100.0,
        }
    )


def test_what_is_whole_is_left_alone() -> None:
    frame = load()
    done = mend_load(frame, "f")
    assert done.notes == ()
    pd.testing.assert_frame_equal(done.frame, frame)


@pytest.mark.parametrize("value", [-1.0, -np.inf, np.inf, 1e15, 1e300])
def test_an_impossible_number_is_a_gap(value: float) -> None:
    frame = load()
    frame.loc[7, "requests"] = value
    done = mend_load(frame, "here.parquet")
    assert np.flatnonzero(done.frame.requests.isna()).tolist() == [7]
    assert done.frame.input_tokens.notna().all()  # the other numbers of that minute are believed
    assert len(done.notes) == 1
    for words in ("here.parquet", "'requests'", "1 impossible", "prod/chat", "00:07"):
        assert words in done.notes[0]
    validate_load(done.frame, "here.parquet")


def test_one_percent_of_a_services_rows_is_few_and_more_is_refused() -> None:
    frame = load(400)  # 1 % are 4 rows
    frame.loc[:3, "requests"] = -1.0
    assert mend_load(frame, "f").frame.requests.isna().sum() == 4
    frame.loc[:4, "requests"] = -1.0
    with pytest.raises(FrameError, match=r"'requests', row 0: -1.0 \(5 such rows\)"):
        validate_load(mend_load(frame, "f").frame, "f")


def test_few_is_counted_for_each_service() -> None:
    other = load(400, "prod/other").assign(requests=-1.0)
    frame = pd.concat([load(), other], ignore_index=True)
    frame.loc[0, "requests"] = -1.0
    done = mend_load(frame, "f").frame
    assert np.isnan(done.requests[0])
    assert (done.requests[400:] == -1.0).all()


def test_a_row_that_is_there_twice_is_kept_once() -> None:
    frame = pd.concat([load(), load().iloc[20:100]])  # an export whose pages overlap
    done = mend_load(frame, "f")
    pd.testing.assert_frame_equal(done.frame, load())
    assert done.notes == ("f: 80 rows are there twice; kept once",)


def test_of_two_rows_that_differ_only_what_differs_is_unknown() -> None:
    frame = pd.concat([load(), load().iloc[[5]].assign(requests=99.0)], ignore_index=True)
    done = mend_load(frame, "f")
    assert len(done.frame) == 400
    assert np.isnan(done.frame.requests[5])
    assert done.frame.input_tokens[5] == 1000.0
    assert "1 steps have two rows that differ" in done.notes[0]


def test_a_file_that_tells_two_stories_is_refused() -> None:
    frame = pd.concat([load(), load().assign(requests=1.0)], ignore_index=True)
    with pytest.raises(FrameError, match="400 duplicate rows"):
        validate_load(mend_load(frame, "f").frame, "f")


@pytest.mark.parametrize("column", ["ts", "service", "requests"])
def test_what_is_missing_is_left_to_the_contract(column: str) -> None:
    frame = load().drop(columns=column)
    with pytest.raises(FrameError, match="missing"):
        validate_load(mend_load(frame, "f").frame, "f")


def test_text_instead_of_numbers_is_left_to_the_contract() -> None:
    frame = load().assign(requests="many")
    with pytest.raises(FrameError, match="numbers or NaN"):
        validate_load(mend_load(frame, "f").frame, "f")
