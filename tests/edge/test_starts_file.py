"""Watched starts on disk: whole, bounded, each pod once; trouble is one line and passes."""

import logging
import math
from pathlib import Path

import pandas as pd
import pytest

from autoscaler.edge import starts_file
from autoscaler.edge.kube.starts import Start
from autoscaler.edge.starts_file import StartsFile
from models.starts import WATCHED_FILE
from training.telemetry import read_frame, read_telemetry, validate_startups

T0 = 1_795_759_200.0


def start(uid: str, created: float = 0.0, ready: float = 90.0) -> Start:
    ended = math.nan if math.isfinite(ready) else T0 + created + 5.0
    at = T0 + created
    return Start("prod/chat", "h100", uid, at, at + 2.0, at + 9.0, at + ready, ended)


def kept(folder: Path) -> list[str]:
    return list(read_frame(folder / WATCHED_FILE, validate_startups).pod_uid)


def test_starts_are_added_and_each_pod_is_kept_once(tmp_path: Path) -> None:
    folder = tmp_path / "telemetry"
    assert StartsFile(folder).keep([start("a"), start("b", 10.0, math.nan)])
    assert StartsFile(folder).keep([start("a"), start("c", 20.0)])  # another process tells a again
    assert kept(folder) == ["a", "b", "c"]
    assert [p.name for p in folder.iterdir()] == [WATCHED_FILE]  # no draft is left
    frame = read_frame(folder / WATCHED_FILE, validate_startups)
    assert list(frame.ready_ts.isna()) == [False, True, False]
    assert list(frame.phase_load_seconds.dropna()) == [81.0, 81.0]  # ready at 90, initialized at 9


def test_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts_file, "MAX_ROWS", 3)
    file = StartsFile(tmp_path)
    file.keep([start("new", 50.0), start("old", 0.0), start("newer", 60.0)])
    file.keep([start("newest", 70.0)])
    assert kept(tmp_path) == ["new", "newer", "newest"]


def test_trouble_is_told_once_and_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "telemetry"
    folder.write_text("a file where the folder should be")
    file = StartsFile(folder)
    with caplog.at_level(logging.WARNING, logger="foreserve"):
        assert not file.keep([start("a")])
        assert not file.keep([start("a")])
        assert len(caplog.messages) == 1
        folder.unlink()
        assert file.keep([start("a")])
    assert kept(folder) == ["a"]


@pytest.mark.parametrize("with_uid", [False, True])
def test_a_file_of_somebody_else_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, with_uid: bool
) -> None:
    path = tmp_path / WATCHED_FILE
    if with_uid:
        path.write_bytes(b"no Parquet")
    else:
        when = pd.to_datetime([T0], unit="s", utc=True)
        columns = {"service": "a", "variant": "b", "created_ts": when, "ready_ts": when}
        pd.DataFrame(columns).to_parquet(path)
    before = path.read_bytes()
    assert not StartsFile(tmp_path).keep([start("a")])
    assert path.read_bytes() == before
    assert str(path) in caplog.text


def test_training_reads_both_files(tmp_path: Path) -> None:
    grid = pd.to_datetime([T0, T0 + 60.0], unit="s", utc=True)
    load = {"ts": grid, "service": "prod/chat"}
    numbers = {"requests": 1.0, "input_tokens": 1.0, "output_tokens": 1.0}
    pd.DataFrame({**load, **numbers}).to_parquet(tmp_path / "load.parquet")
    assert "startups.parquet" in read_telemetry(tmp_path).missing
    StartsFile(tmp_path).keep([start("a"), start("b", 500.0)])
    assert "startups.parquet" not in read_telemetry(tmp_path).missing
    when = pd.to_datetime([T0 + 1.0, T0 - 9000.0], unit="s", utc=True)
    ingested = {"service": "prod/chat", "variant": "h100", "created_ts": when}
    ingested["ready_ts"] = when + pd.Timedelta(seconds=89)
    pd.DataFrame(ingested).to_parquet(tmp_path / "startups.parquet")
    found = read_telemetry(tmp_path).startups
    assert list(found.created_ts.dt.as_unit("ns").astype("int64") / 1e9 - T0) == [-9000, 0, 500]
