import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from otlp_builders import (
    POD,
    T0,
    counter,
    exponential,
    export,
    fold_all,
    gauge,
    histogram,
    read_store,
)

from autoscaler.edge.otlp_store import OtlpStore
from models.frames import FrameError
from models.otlp_cells import Amount
from models.otlp_fold import Fold
from models.otlp_names import IDENTITY_ATTRIBUTES
from models.otlp_points import metric_points
from models.otlp_schema import FILE_NAME, StoreError
from training.ingest_otlp import Period

SUCCESS = "vllm:request_success_total"


def minutes(first: int, last: int, *, pods: int = 1) -> Fold:
    """10 requests each minute and pod, exported every minute."""
    return fold_all(
        *(
            export(
                counter(SUCCESS, 10 * i, 60.0 * i, 0),
                histogram("vllm:time_to_first_token_seconds", [0.3] * (10 * i), 60.0 * i, 0),
                resource={**POD, "k8s.pod.name": str(pod)},
            )
            for i in range(first, last)
            for pod in range(pods)
        )
    )


def filled(first_bin: int, bins: int, sources: int) -> Fold:
    """Cells as busy pods make them, without the messages."""
    fold = Fold(bin_seconds=30)
    fold.sources = {(("pod", str(i)), ("service.name", "chat")): i for i in range(1, sources + 1)}
    for b in range(T0 // 30 + first_bin, T0 // 30 + first_bin + bins):
        for i in fold.sources.values():
            buckets = {(x / 7.0, (x + 1) / 7.0): x / 3.0 for x in range(1, 12)}
            seen = (b * 30.0, b * 30.0 + 30.0)
            fold.cells[b, i] = {
                "success": Amount(*seen, 5.0),
                "ttft": Amount(*seen, 7.0, 22.0, 0.0, buckets),
            }
    return fold


def test_training_reads_what_was_received(tmp_path: Path) -> None:
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        assert store.flush(minutes(1, 21, pods=2)) == 80
        trained = read_store(tmp_path)  # while the writer has it open
    assert list(trained.load.requests) == pytest.approx([20.0] * 20)
    assert list(trained.serving.ready_replicas) == pytest.approx([2.0] * 20)
    later = read_store(tmp_path, Period(T0 + 600.0, T0 + 900.0)).load
    assert [t.timestamp() - T0 for t in later.ts] == [600, 660, 720, 780, 840]


def test_what_is_written_in_parts_adds_up(tmp_path: Path) -> None:
    fold = Fold(bin_seconds=30)
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        for i in range(1, 13):  # every 10 s: three exports share a bin, each flushed by itself
            message = export(counter(SUCCESS, i, 10.0 * i, 0))
            assert not fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), T0 + 10.0 * i)
            store.flush(fold)
            fold = Fold(bin_seconds=30)  # as after a restart
            store.restore(fold)
    assert list(read_store(tmp_path).load.requests) == pytest.approx([6.0, 6.0])


def test_states_of_all_kinds_survive_a_restart(tmp_path: Path) -> None:
    fold = fold_all(
        export(
            gauge("vllm:num_requests_running", 3.0, 60),
            counter(SUCCESS, 5, 60, 0),
            histogram("vllm:time_to_first_token_seconds", [0.3], 60, 0),
            exponential(
                "gen_ai.server.time_per_output_token", [1, 0, 2], 60, 0, scale=3, offset=-9
            ),
        )
    )
    before = {key: (one.source, one.state) for key, one in fold.series.items()}
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        store.flush(fold)
        again = Fold(bin_seconds=30)
        store.restore(again)
    after = {key: (one.source, one.state) for key, one in again.series.items()}
    assert {k: repr(v) for k, v in after.items()} == {k: repr(v) for k, v in before.items()}
    assert again.sources == fold.sources


def test_old_cells_go(tmp_path: Path) -> None:
    with OtlpStore(tmp_path, bin_seconds=30, retention_seconds=600.0) as store:
        store.flush(minutes(1, 21))
        store.prune(T0 + 1200.0)
        load = read_store(tmp_path).load
    assert [t.timestamp() - T0 for t in load.ts] == list(range(600, 1200, 60))


def test_the_file_never_grows_beyond_its_limit(tmp_path: Path) -> None:
    limit = 4 * 2**20
    file = tmp_path / FILE_NAME
    with OtlpStore(tmp_path, bin_seconds=30, max_bytes=limit) as store:
        for hour in range(12):
            store.flush(filled(120 * hour, 120, 20))
            store.prune(T0 + 3600.0 * (hour + 1))
            assert file.stat().st_size <= limit
        newest = read_store(tmp_path).load.ts.max().timestamp()
    assert newest == T0 + 12 * 3600 - 60  # the oldest went


def test_a_full_file_keeps_what_waits(tmp_path: Path) -> None:
    fold = filled(0, 150, 40)
    rng = np.random.default_rng(7)
    for cell in fold.cells.values():  # what cannot be compressed
        amounts = rng.random(250).tolist()
        cell["ttft"].buckets = {(float(i), i + 1.0): x for i, x in enumerate(amounts)}

    cells = len(fold.cells)
    with OtlpStore(tmp_path, bin_seconds=30, max_bytes=4 * 2**20) as store:
        with pytest.raises(OSError, match="full"):
            store.flush(fold)
        assert len(fold.cells) == cells


@pytest.mark.parametrize("content", [b"no database at all, just some text" * 100])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StoreError, match="allowed: a store"):
        OtlpStore(tmp_path, bin_seconds=30)
    with pytest.raises(StoreError, match="allowed: a store"):
        read_store(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    OtlpStore(tmp_path, bin_seconds=30).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    db.close()
    with pytest.raises(StoreError, match=r"version 99; allowed: 2 \(start a new folder"):
        read_store(tmp_path)
    with pytest.raises(StoreError, match="version 99"):
        OtlpStore(tmp_path, bin_seconds=30)


def test_an_empty_store_is_nothing_of_use(tmp_path: Path) -> None:
    OtlpStore(tmp_path, bin_seconds=30).close()
    with pytest.raises(FrameError, match="nothing of use"):
        read_store(tmp_path)


def test_merging_changes_nothing(tmp_path: Path) -> None:
    fold = Fold(bin_seconds=30)
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        for i in range(1, 181):  # half an hour by 10 s, each flushed: 60 blocks a period
            message = export(
                gauge("vllm:num_requests_running", 3.0, 10.0 * i),
                counter(SUCCESS, i, 10.0 * i, 0),
                histogram("vllm:time_to_first_token_seconds", [0.3, 2.0] * i, 10.0 * i, 0),
            )
            assert not fold.add_points(metric_points(message, IDENTITY_ATTRIBUTES), T0 + 10.0 * i)
            store.flush(fold)
        before = read_store(tmp_path)
        blocks = [count_blocks(tmp_path)]
        while store.merge_one(T0 + 1800.0):
            pass
        blocks.append(count_blocks(tmp_path))
        again = read_store(tmp_path)
        while store.merge_one(T0 + 86_400.0):
            pass
        blocks.append(count_blocks(tmp_path))
        final = read_store(tmp_path)
    assert blocks == [180, 3, 3]  # 60 flushes in each of three periods
    for frames in (again, final):
        pd.testing.assert_frame_equal(frames.load, before.load, rtol=1e-5)
        pd.testing.assert_frame_equal(frames.serving, before.serving, rtol=1e-5)
    assert list(final.load.requests) == pytest.approx([6.0] * 30, rel=1e-6)


def test_a_large_period_is_merged_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        for first in (0, 10):
            store.flush(filled(first, 10, 7))
        before = read_store(tmp_path)
        monkeypatch.setattr("autoscaler.edge.otlp_store.MERGE_BYTES", 10_000)
        assert store.merge_one(T0 + 86_400.0)
        assert not store.merge_one(T0 + 86_400.0)
    assert count_blocks(tmp_path) == 3
    pd.testing.assert_frame_equal(read_store(tmp_path).serving, before.serving)


def test_what_comes_after_the_merge_is_added(tmp_path: Path) -> None:
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        store.flush(filled(0, 20, 1))
        assert store.merge_one(T0 + 86_400.0)
        store.flush(filled(0, 20, 1))  # the same bins once more: another 5 requests each
        assert list(read_store(tmp_path).load.requests) == pytest.approx([20.0] * 10)
        assert store.merge_one(T0 + 86_400.0)
        assert list(read_store(tmp_path).load.requests) == pytest.approx([20.0] * 10)


def count_blocks(folder: Path) -> int:
    with sqlite3.connect(folder / FILE_NAME) as db:
        (count,) = db.execute("SELECT count(*) FROM block").fetchone()
    db.close()
    return int(count)


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    script = Path(__file__).with_name("writing_process.py")
    told = 0
    for wait_lines in (5, 180, 411):
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(wait_lines):
            told = int(process.stdout.readline())
        during = read_store(tmp_path).load  # while it writes and merges
        process.kill()
        told = max([told, *(int(x) for x in process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        assert whole_intervals(during) == pytest.approx(10.0)
    after = read_store(tmp_path).load
    assert whole_intervals(after) == pytest.approx(10.0)
    # every bin that was reported is there: two make an interval
    assert len(after) >= (told + 1 - T0 // 30) // 2
    assert after.ts.diff().dropna().dt.total_seconds().unique().tolist() == [60.0]


def whole_intervals(load: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Requests of all intervals but the last, of which one bin may be missing."""
    return np.asarray(load.requests.to_numpy()[:-1])
