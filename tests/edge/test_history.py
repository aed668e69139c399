"""A history is read in batches: the answer is that of the whole frame, and memory that of the answer."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autoscaler.edge import history, history_rows
from autoscaler.edge.history import read_history, read_parts
from models.frames import FrameError, LoadSeries, to_series, validate_load
from models.mend import mend_load
from models.recorded import CompactLoad, parts_of

START = pd.Timestamp("2026-01-03", tz="UTC")
STEPS, KEEP = 400, 300
NAMES = [f"prod/s{i}" for i in range(7)]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def load(names: list[str] = NAMES, steps: int = STEPS) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    requests = rng.integers(0, 90, len(names) * steps).astype(np.float64)
    return pd.DataFrame(
        {
            "ts": np.tile(START + pd.to_timedelta(np.arange(steps), unit="min"), len(names)),
            "service": np.repeat(names, steps),
            "requests": requests,
            "input_tokens": 1000 * requests,
            "output_tokens": 100 * requests,
        }
    )


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sample(frac=1.0, random_state=3)


def by_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("ts", kind="stable")


def with_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[np.arange(len(frame)) % 11 != 4]
    return frame.assign(output_tokens=frame.output_tokens.mask(frame.requests < 20))


def begun_late(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.ts > START + pd.Timedelta(minutes=STEPS - 20)]


def one_has_ended(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame.service != NAMES[2]) | (frame.ts < START + pd.Timedelta(minutes=50))]


def joined_twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame])


def odd_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Some rows twice, one of them with another number; a count below zero; one beyond measure."""
    frame = frame.copy()
    frame.loc[390, "requests"] = -1.0
    frame.loc[3 * STEPS - 3, "input_tokens"] = 1e300
    rival = frame.loc[[STEPS - 8]].assign(output_tokens=7.0)
    return pd.concat([frame, frame.loc[[STEPS - 9]], rival])


def whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"requests": "Int64", "input_tokens": "int32", "output_tokens": "float32"})


def coarse_times_and_codes(frame: pd.DataFrame) -> pd.DataFrame:
    local = frame.ts.dt.tz_convert("Europe/Berlin").astype("datetime64[ms, Europe/Berlin]")
    return frame.assign(ts=local, service=frame.service.astype("category"))


def numbers_as_decimals(frame: pd.DataFrame) -> pd.DataFrame:
    """A form that is read at once, as a frame."""
    return frame.assign(requests=frame.requests.astype(pd.ArrowDtype(pa.decimal128(12, 2))))


def alike(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def of_the_frame(frame: pd.DataFrame, services: set[str], where: str) -> LoadSeries:
    """What the contract makes of the whole frame."""
    known = frame[frame.service.isin(services)]
    recent = known[known.ts > known.ts.max() - pd.Timedelta(minutes=KEEP)]
    return to_series(validate_load(mend_load(recent, where).frame, where), where, step_seconds=60.0)


def written(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_parquet(folder / "load.parquet", index=False, row_group_size=301)
    return folder / "load.parquet"


def put_together(found: CompactLoad | LoadSeries | None) -> np.ndarray:
    assert found is not None
    return np.concatenate([part.values for part in parts_of(found)])


CHANGES = [
    alike,
    shuffled,
    by_time,
    with_gaps,
    begun_late,
    one_has_ended,
    joined_twice,
    odd_rows,
    whole_numbers,
    coarse_times_and_codes,
    numbers_as_decimals,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda x: x.__name__)
@pytest.mark.parametrize("order", [alike, shuffled], ids=lambda x: x.__name__)
def test_batches_say_what_the_whole_frame_says(
    change: Change, order: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_rows, "BATCH_ROWS", 97)
    monkeypatch.setattr(history, "FRAME_ROWS", 700)  # two services at a time
    frame = order(change(load()))
    path = written(frame, tmp_path)
    asked = {*NAMES[:5], "prod/never-seen", "a", "zz"}  # two have load and no policy
    found = read_history(path, asked, 60.0, KEEP)
    expected = of_the_frame(frame, asked, str(path))
    assert found is not None
    assert found.services == expected.services
    assert (found.start_seconds, found.step_seconds) == (expected.start_seconds, 60.0)
    assert found.end_seconds == expected.end_seconds
    np.testing.assert_array_equal(put_together(found), expected.values.astype(np.float32))


@pytest.mark.parametrize("order", [alike, shuffled], ids=lambda x: x.__name__)
def test_parts_are_the_whole_and_end_together(order: Change, tmp_path: Path) -> None:
    path = written(order(odd_rows(one_has_ended(load()))), tmp_path)
    whole = read_history(path, NAMES, 60.0, KEEP)
    assert whole is not None
    parts = list(read_parts(path, NAMES, 60.0, KEEP, at_once=2))
    assert [part.services for part in parts] == [whole.services[i : i + 2] for i in (0, 2, 4)]
    assert {part.end_seconds for part in parts} == {whole.end_seconds}
    np.testing.assert_array_equal(
        np.concatenate([put_together(part) for part in parts]), whole.values
    )


def test_sparse_services_are_no_longer_steps(tmp_path: Path) -> None:
    """Of a few services only every fifth minute is told; the file's step is that of most rows."""
    frame = load()
    few = frame.service.isin(NAMES[:2]) & (frame.ts.dt.minute % 5 != 0)
    path = written(frame[~few], tmp_path)
    assert len(list(read_parts(path, NAMES, 60.0, KEEP, at_once=2))) == 4
    with pytest.raises(FrameError, match="steps of 300 s"):
        list(read_parts(path, NAMES[:2], 60.0, KEEP, at_once=1))


def test_what_is_mended_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_history(written(odd_rows(load()), tmp_path), NAMES, 60.0, KEEP)
    said = "\n".join(caplog.messages)
    for words in ("there twice", "two rows that differ", "'requests': 1 imp", "'input_tokens': 1"):
        assert words in said


def often_negative(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(requests=frame.requests.mask(frame.service == NAMES[1], -1.0))


def some_without_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ts=frame.ts.mask(frame.requests == 7))


def beside_the_grid(frame: pd.DataFrame) -> pd.DataFrame:
    beside = frame.ts + pd.Timedelta(seconds=5)
    return frame.assign(ts=frame.ts.mask(frame.service == NAMES[3], beside))


def ninety_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ts=START + (frame.ts - START) * 1.5)


def five_minutes(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.ts.dt.minute % 5 == 0]


def many_rivals(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.assign(requests=frame.requests + 1)])


def naive_times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ts=frame.ts.dt.tz_localize(None))


def no_tokens(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="input_tokens")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (often_negative, r"'requests', row 0: -1.0 \(300 such rows\); allowed: a number >= 0"),
        (some_without_time, r"column 'ts'.*allowed: a timestamp"),
        (beside_the_grid, "off the grid of 60 s that starts at 2026-01-03"),
        (ninety_seconds, "steps of 90 s; allowed: 60 s"),
        (five_minutes, "steps of 300 s; allowed: 60 s"),
        (many_rivals, "duplicate rows, the first for service=prod/s"),
        (naive_times, "with a time zone"),
        (no_tokens, "'input_tokens' is missing"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
@pytest.mark.parametrize("order", [alike, shuffled], ids=lambda x: x.__name__)
def test_what_cannot_be_used_is_refused_by_name(
    change: Change, words: str, order: Change, tmp_path: Path
) -> None:
    path = written(order(change(load())), tmp_path)
    with pytest.raises(FrameError, match=f"load.parquet: .*{words}"):
        read_history(path, NAMES, 60.0, KEEP)


def test_no_known_service_is_no_history(tmp_path: Path) -> None:
    path = written(load(), tmp_path)
    assert read_history(path, {"prod/other"}, 60.0, KEEP) is None
    assert read_history(path, set(), 60.0, KEEP) is None


def test_without_a_step_the_files_own_is_taken(tmp_path: Path) -> None:
    found = read_history(written(five_minutes(load()), tmp_path), NAMES, None, 0)
    assert found is not None
    assert found.step_seconds == 300.0
    assert found.values.shape == (len(NAMES), STEPS // 5, 3)


@contextmanager
def arrow_counted() -> Iterator[pa.MemoryPool]:
    """Count what Arrow takes meanwhile."""
    usual = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counting)
    try:
        yield counting
    finally:
        pa.set_memory_pool(usual)


@pytest.mark.parametrize("change", [alike, by_time, joined_twice], ids=lambda x: x.__name__)
def test_memory_is_that_of_what_is_kept(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_rows, "BATCH_ROWS", 4096)
    monkeypatch.setattr(history, "FRAME_ROWS", 32_768)
    names = [f"prod/s{i}" for i in range(64)]
    path = tmp_path / "load.parquet"
    change(load(names, 8192)).to_parquet(path, index=False)  # 8 MiB a column, one row group
    assert pq.read_metadata(path).num_row_groups == 1
    read_history(path, names, 60.0, 10)  # what is imported and cached once
    with arrow_counted() as arrow:
        tracemalloc.start()
        found = read_history(path, names, 60.0, 2048)
        _, python_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found is not None
    kept = found.values.nbytes  # 1.5 MiB
    assert python_bytes < 2 * kept + 12 * 2**20
    assert arrow.max_memory() < 4 * 2**20
