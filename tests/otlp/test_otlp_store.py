import math
import sqlite3
from pathlib import Path

import pytest
from otlp_builders import POD, T0, counter, exponential, export, fold_all, gauge, histogram

from autoscaler.edge.otlp_store import OtlpStore, read_recent
from models.otlp_cells import Amount, from_bytes, merge, to_bytes
from models.otlp_fold import Fold
from models.otlp_identity import Identity
from models.otlp_names import IDENTITY_ATTRIBUTES
from models.otlp_points import metric_points
from models.otlp_schema import FILE_NAME, StoreError
from training.ingest_otlp import Period, read_store

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


def test_training_and_the_online_path_read_the_same(tmp_path: Path) -> None:
    with OtlpStore(tmp_path, bin_seconds=30) as store:
        assert store.flush(minutes(1, 21, pods=2)) == 80
        trained = read_store(tmp_path, Identity())  # while the writer has it open
        recent = read_recent(
            tmp_path, now_seconds=T0 + 1205.0, window_seconds=300.0, identity=Identity()
        )
    assert list(trained.load.requests) == pytest.approx([20.0] * 20)
    assert list(trained.serving.ready_replicas) == pytest.approx([2.0] * 20)
    assert recent.frames.load.requests.tolist() == trained.load.requests.tolist()[-5:]
    assert recent.frames.serving.tail(5).equals(recent.frames.serving)
    assert recent.staleness_seconds == pytest.approx(5.0)
    later = read_store(tmp_path, Identity(), period=Period(T0 + 600.0, T0 + 900.0)).load
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
    assert list(read_store(tmp_path, Identity()).load.requests) == pytest.approx([6.0, 6.0])


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
        load = read_store(tmp_path, Identity()).load
    assert [t.timestamp() - T0 for t in load.ts] == list(range(600, 1200, 60))


def test_the_file_never_grows_beyond_its_limit(tmp_path: Path) -> None:
    limit = 4 * 2**20
    file = tmp_path / FILE_NAME
    with OtlpStore(tmp_path, bin_seconds=30, max_bytes=limit) as store:
        for hour in range(12):
            store.flush(filled(120 * hour, 120, 20))
            store.prune(T0 + 3600.0 * (hour + 1))
            assert file.stat().st_size <= limit
        newest = read_store(tmp_path, Identity()).load.ts.max().timestamp()
    assert newest == T0 + 12 * 3600 - 60  # the oldest went


def test_a_full_file_keeps_what_waits(tmp_path: Path) -> None:
    fold = filled(0, 600, 40)
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
        read_store(tmp_path, Identity())


def test_another_version_is_refused(tmp_path: Path) -> None:
    OtlpStore(tmp_path, bin_seconds=30).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    db.close()
    with pytest.raises(StoreError, match="version 99; allowed: 1"):
        read_recent(tmp_path, now_seconds=T0, window_seconds=60.0, identity=Identity())


def test_an_empty_store_is_infinitely_stale(tmp_path: Path) -> None:
    OtlpStore(tmp_path, bin_seconds=30).close()
    recent = read_recent(tmp_path, now_seconds=T0, window_seconds=60.0, identity=Identity())
    assert recent.staleness_seconds == math.inf
    assert recent.frames.load.empty


def test_buckets_written_in_parts_lose_no_count() -> None:
    # edges of exponential buckets are stored short: read back, they differ from exact ones by 1e-10
    exact = (2.0 ** (-75 / 32), 2.0 ** (-74 / 32))
    cell = {"ttft": Amount(total=2.0, count=10.0, buckets={exact: 10.0})}
    for _ in range(2):
        again = from_bytes(to_bytes(cell))
        merge(again, {"ttft": Amount(total=2.0, count=10.0, buckets={exact: 10.0})})
        cell = again
    stored = from_bytes(to_bytes(cell))["ttft"]
    assert stored.count == 30.0
    assert math.fsum(stored.buckets.values()) == 30.0
