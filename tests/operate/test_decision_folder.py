"""The folder of the decision log: bounded, and readable after a kill."""

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.core.accounts import PlanName, nothing_known
from autoscaler.core.outcome import Decisions, Outlook, ServiceState, State
from autoscaler.core.types import Observation, Policies, ServiceObservation
from autoscaler.edge import decision_folder, decision_log
from autoscaler.edge.decision_changes import Inputs, differences, with_change
from autoscaler.edge.decision_folder import DecisionFolder, LoggedTick, files_of
from autoscaler.edge.decision_log import LogError, read_log

BEGIN = 1_795_759_200.0
LIMIT = 400_000


def tick(second: int, rate: float = 1.0, generation: str = "g-1") -> LoggedTick:
    rng = np.random.default_rng(second)  # so that gzip cannot make nothing of it
    outlook = Outlook(
        BEGIN,
        np.arange(1.0, 61.0),
        np.array([0.1, 0.9]),
        rng.random((60, 2)),
        1.0,
        1.0,
        trusted=True,
    )
    seen = ServiceObservation(rate, 500.0, 100.0, {})
    return LoggedTick(
        generation,
        Inputs(Policies({}, ()), {}, State({"a/b": ServiceState(desired={"v": second})})),
        Observation(BEGIN + second, 15.0, {"a/b": seen}, {}),
        {"a/b": outlook},
        Decisions(BEGIN + second, {}, "separable"),
        State({"a/b": ServiceState(desired={"v": second + 1})}),
    )


def ticks_in(folder: Path) -> list[float]:
    return [e.observation.now_seconds - BEGIN for f in files_of(folder) for e in read_log(f)[1]]


def test_the_oldest_files_go(tmp_path: Path) -> None:
    """A tick is about 1.5 KB here; a file of 100 KB holds some 60, the folder of 400 KB some 240."""
    log = DecisionFolder(tmp_path, "p", LIMIT)
    for second in range(600):
        assert log.write(tick(second)) == ""
    log.close()
    assert sum(f.stat().st_size for f in files_of(tmp_path)) <= LIMIT
    kept = ticks_in(tmp_path)
    assert kept == list(range(int(kept[0]), 600))  # without a gap, to the end
    assert 100 < len(kept) < 600


def test_files_of_others_count_and_other_things_stay(tmp_path: Path) -> None:
    other = tmp_path / "decisions-20200101T000000Z-other.jsonl.gz"
    other.write_bytes(b"x" * LIMIT)
    mine = tmp_path / "notes.txt"
    mine.write_bytes(b"x" * LIMIT)
    log = DecisionFolder(tmp_path, "p", LIMIT)
    assert log.write(tick(0)) == ""
    log.close()
    assert not other.exists()
    assert mine.exists()


def test_many_small_files_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_folder, "MAX_FILES", 5)
    for second in range(9):
        log = DecisionFolder(tmp_path, f"restart-{second}", LIMIT)
        log.write(tick(second))
        log.close()
    assert len(files_of(tmp_path)) == 5


def test_a_killed_process_leaves_all_whole_lines(tmp_path: Path) -> None:
    log = DecisionFolder(tmp_path, "p", LIMIT)
    for second in range(5):
        log.write(tick(second))
    assert ticks_in(tmp_path) == [0, 1, 2, 3, 4]  # flushed, not closed
    (file,) = files_of(tmp_path)
    whole = file.read_bytes()
    log.close()
    file.write_bytes(whole[:-200])  # the machine died
    assert ticks_in(tmp_path) == [0, 1, 2, 3]


def killed(folder: Path) -> tuple[Path, bytes]:
    """Return the file that a process with five ticks leaves when it is killed, and what is in it."""
    log = DecisionFolder(folder, "p", LIMIT)
    for second in range(5):
        log.write(tick(second))
    (file,) = files_of(folder)
    whole = file.read_bytes()
    log.close()
    return file, whole


@pytest.mark.parametrize("at", [100, 500, 600])  # 500: read as the length of a block without an end
def test_a_damaged_file_is_told(tmp_path: Path, at: int) -> None:
    file, whole = killed(tmp_path)
    file.write_bytes(whole[:at] + b"\0" * 50 + whole[at + 50 :])
    with pytest.raises(LogError, match=r"decisions-.*"):
        ticks_in(tmp_path)


@pytest.mark.parametrize("damage", [b"\0" * 50, b"\xff" * 50, b"x" * 5, b"\xff"])
@pytest.mark.parametrize("block_bytes", [1 << 20, 7])  # 7: marks lie across blocks
def test_damage_never_reads_as_an_earlier_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes, block_bytes: int
) -> None:
    """All five ticks are read (a digit may be another: replay tells that), or it is told; never fewer."""
    monkeypatch.setattr(decision_log, "BLOCK_BYTES", block_bytes)
    file, whole = killed(tmp_path)
    for at in range(10, len(whole) - len(damage), 37):
        file.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        try:
            read = ticks_in(tmp_path)
        except LogError as error:
            assert "decisions-" in str(error)  # noqa: PT017 - either is right
        else:
            assert len(read) == 5, at


def test_a_killed_process_may_stop_at_any_byte(tmp_path: Path) -> None:
    file, whole = killed(tmp_path)
    ends = [i + 4 for i in range(len(whole)) if whole.startswith(decision_log.FLUSHED, i)]
    assert len(ends) == 6  # the header and five ticks
    for length in range(ends[0], len(whole) + 1, 11):
        file.write_bytes(whole[:length])
        complete = sum(end <= length for end in ends[1:])
        # up to four bytes of a flush's mark may lack: the line before it is whole all the same
        assert len(ticks_in(tmp_path)) in (complete, complete + 1), length


def test_a_compressed_copy_reads_to_its_end(tmp_path: Path) -> None:
    file, whole = killed(tmp_path)
    text = zlib.decompressobj(decision_log.GZIP_BITS).decompress(whole)
    file.write_bytes(gzip.compress(text))
    assert len(ticks_in(tmp_path)) == 5
    file.write_bytes(gzip.compress(text.removesuffix(b"\n")))
    assert len(ticks_in(tmp_path)) == 5


def test_a_number_that_json_lacks_costs_one_tick_and_a_pause(tmp_path: Path) -> None:
    log = DecisionFolder(tmp_path, "p", LIMIT)
    assert log.write(tick(0)) == ""
    assert "is not logged" in log.write(tick(15, rate=float("inf")))
    assert "again in a minute" in log.write(tick(30))
    assert log.write(tick(90)) == ""
    log.close()
    assert ticks_in(tmp_path) == [0, 90]
    assert len(files_of(tmp_path)) == 2  # the second one says everything again


def test_what_a_process_is_called_is_no_path(tmp_path: Path) -> None:
    log = DecisionFolder(tmp_path, "../../etc/x y", LIMIT)
    assert log.write(tick(0)) == ""
    log.close()
    (file,) = files_of(tmp_path)
    assert file.name.endswith("-.._.._etc_x_y.jsonl.gz")


def test_differences_are_what_a_reader_lacks() -> None:
    before = Inputs(Policies({}, ()), {}, State({"a/b": ServiceState(), "a/c": ServiceState()}))
    other = ServiceState(desired={"v": 2})
    after = Inputs(Policies({}, ()), {}, State({"a/b": other, "a/d": ServiceState()}))
    (record,) = differences(before, after)
    assert set(record["services"]) == {"a/b", "a/c", "a/d"}
    assert record["services"]["a/c"] is None
    assert with_change(before, record) == after
    assert list(differences(after, after)) == []
    with pytest.raises(ValueError, match="kind 'odd'; allowed: policies, starts, state"):
        with_change(before, {"kind": "odd"})


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no decisions-"):
        files_of(tmp_path)


def test_a_closed_hour_stands_before_the_tick_that_closed_it(tmp_path: Path) -> None:
    log = DecisionFolder(tmp_path, "p", LIMIT)
    account = replace(nothing_known(BEGIN - 3600.0), measured_seconds=1200.0)
    assert log.write(tick(0)) == ""
    assert log.write(replace(tick(15), accounts={"a/b": account})) == ""
    log.close()
    (file,) = files_of(tmp_path)
    first, second = read_log(file)[1]
    assert first.accounts == {}
    found = second.accounts["a/b"]
    assert (found.start_seconds, found.measured_seconds) == (BEGIN - 3600.0, 1200.0)
    assert math.isnan(found.plans[PlanName.HPA].usd)
    text = gzip.decompress(file.read_bytes()).decode()
    file.with_name("decisions-bad.jsonl.gz").write_bytes(
        gzip.compress(text.replace('"hpa"', '"other"').encode())
    )
    with pytest.raises(LogError, match="not a record of accounts"):
        list(read_log(file.with_name("decisions-bad.jsonl.gz"))[1])
