"""ServeGen's own pairs of files, with rows in their exact form."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.trace_shapes import TraceError
from training.ingest_trace import Ingested, TraceOptions, ingest_trace
from training.telemetry import read_telemetry
from training.trace_servegen import _mean, is_client

START = 1_743_436_800.0  # 2025-03-31T16:00Z, a multiple of 600 s
FIRST = (
    "0,0.5,0.9,Gamma,1.2,8.1\n600,1.0,1.1,Weibull,1.3,5.0\n1200,0,0,,0,0\n1800,2.0,1.0,Gamma,1,1\n"
)
SECOND = "0,1.5,0.9,Gamma,1.2,8.1\n600,0,0,,0,0\n1200,0,0,,0,0\n1800,0,0,,0,0\n"
SHORT = {"input_tokens": "{10: 0.25, 30: 0.75}", "output_tokens": "{4: 1.0}"}  # mean 25 and 4
LONG = {"input_tokens": "{100: 1.0}", "output_tokens": "{7: 0.5, 9: 0.5}"}  # 100 and 8
EMPTY = {"input_tokens": "{}", "output_tokens": "{}"}


def client(folder: Path, number: int, trace: str, lengths: object) -> Path:
    path = folder / f"chunk-{number}-trace.csv"
    path.write_text(trace)
    if lengths is not None:
        content = lengths if isinstance(lengths, str) else json.dumps(lengths)
        (folder / f"chunk-{number}-dataset.json").write_text(content)
    return path


def ingest(files: list[Path], out: Path, **options: object) -> Ingested:
    made = TraceOptions(service="prod/chat", start_seconds=START, **options)  # type: ignore[arg-type]
    return ingest_trace(files, out, made)


def test_two_clients_add_up_and_a_window_that_nobody_tells_is_absent(tmp_path: Path) -> None:
    one = client(tmp_path, 1, FIRST, {"0": SHORT, "1800": LONG})
    two = client(tmp_path, 22, SECOND, {"0": LONG})
    done = ingest([one, two], tmp_path / "out")
    assert (done.rows, done.bad_rows, done.step_seconds) == (4, 0, 600.0)
    load = read_telemetry(tmp_path / "out").load
    assert [(t.timestamp() - START) for t in load.ts] == [0, 600, 1800]  # at 1200 nobody was seen
    assert load.requests.tolist() == [600 * 2.0, 600 * 1.0, 600 * 2.0]
    assert load.input_tokens.tolist() == [300 * 25 + 900 * 100, 600 * 25, 1200 * 100]
    assert load.output_tokens.tolist() == [300 * 4 + 900 * 8, 600 * 4, 1200 * 8]


def test_empty_lengths_are_those_before_and_none_before_is_unknown(tmp_path: Path) -> None:
    one = client(tmp_path, 1, FIRST, {"0": EMPTY, "600": SHORT, "1800": EMPTY})
    ingest([one], tmp_path / "out")
    load = read_telemetry(tmp_path / "out").load
    assert load.requests.tolist() == [300, 600, 1200]
    assert np.isnan(load.input_tokens[0])
    assert load.input_tokens.tolist()[1:] == [600 * 25, 1200 * 25]


def test_a_client_that_was_seen_once_knows_its_window(tmp_path: Path) -> None:
    two = client(tmp_path, 2, SECOND, {"0": LONG})
    done = ingest([two], tmp_path / "out", step_seconds=600.0)
    assert (done.load_rows, done.step_seconds) == (1, 600.0)
    with pytest.raises(TraceError, match=r"a row of .* is a window of 600 s"):
        ingest([two], tmp_path / "other", step_seconds=60.0)


def test_a_client_that_was_never_seen_adds_nothing(tmp_path: Path) -> None:
    idle = client(tmp_path, 3, "0,0,0,,0,0\n600,0,0,,0,0\n", {"0": EMPTY})
    one = client(tmp_path, 1, FIRST, {"0": SHORT})
    ingest([idle, one], tmp_path / "out")
    assert read_telemetry(tmp_path / "out").load.requests.tolist() == [300, 600, 1200]


def test_bad_lines_are_counted_and_named(tmp_path: Path) -> None:
    trace = "0,0.5,1,Gamma,1,1\n600,much,1,Gamma,1,1\n1200,1.0\n1800,1.0,1,Gamma,1,1\n"
    one = client(tmp_path, 1, trace, {"0": SHORT})
    with pytest.raises(
        TraceError, match=r"line 2, field rate_rps: 'much'; allowed: .* 2 of 4 rows"
    ):
        ingest([one], tmp_path / "out")
    assert ingest([one], tmp_path / "out", max_bad_ratio=0.5).load_rows == 2


MULTIMODAL = {"text_tokens": "{1: 1.0}", "image_tokens": "{5: 1.0}", "output_tokens": "{2: 1.0}"}


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        (None, "chunk-1-dataset.json: no such file; a ServeGen client is read with its lengths"),
        (
            {"0": MULTIMODAL},
            "window 0: has text_tokens, image_tokens, output_tokens; allowed: input",
        ),
        ("[1, 2]", "not ServeGen's lengths by window"),
        ('{"0": ', "not ServeGen's lengths by window"),
        ({"noon": SHORT}, "not ServeGen's lengths by window"),
        ({"0": {**SHORT, "input_tokens": "{1: 0.5}"}}, "input_tokens: '{1: 0.5}'; allowed: tokens"),
        ({"0": {**SHORT, "input_tokens": "{-1: 1.0}"}}, "allowed: tokens from 0 to 1e"),
        ({"0": {**SHORT, "output_tokens": "5"}}, "output_tokens: '5'; allowed: tokens from 0"),
        ({"0": {**SHORT, "output_tokens": "{__import__('os'): 1}"}}, "allowed: {tokens: share"),
        ({"0": {**SHORT, "output_tokens": "{1: nan}"}}, "shares that add up to 1"),
    ],
)
def test_lengths_that_are_not_such_are_one_sentence(
    tmp_path: Path, lengths: object, says: str
) -> None:
    one = client(tmp_path, 1, FIRST, lengths)
    with pytest.raises(TraceError) as caught:
        ingest([one], tmp_path / "out")
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_it_needs_a_service_and_takes_no_columns(tmp_path: Path) -> None:
    one = client(tmp_path, 1, FIRST, {"0": SHORT})
    with pytest.raises(TraceError, match="--service NAMESPACE/NAME"):
        ingest_trace([one], tmp_path / "out", TraceOptions())
    with pytest.raises(TraceError, match="has no column names"):
        ingest([one], tmp_path / "out", mapping={"rate_rps": "rate"})
    with pytest.raises(TraceError, match="fewer than two windows"):
        ingest([client(tmp_path, 2, "0,1,1,Gamma,1,1\n", {"0": SHORT})], tmp_path / "out")


def test_which_files_are_such() -> None:
    assert is_client(Path("a/chunk-12-trace.csv"))
    assert not is_client(Path("a/chunk-12-dataset.json"))
    assert not is_client(Path("a/my-chunk-12-trace.csv"))


@given(st.dictionaries(st.integers(0, 100_000), st.integers(1, 1000), min_size=1, max_size=30))
def test_the_mean_lies_within_and_is_the_weighted_one(weights: dict[int, int]) -> None:
    total = sum(weights.values())
    text = str({k: w / total for k, w in weights.items()})
    expected = sum(k * w for k, w in weights.items()) / total
    assert _mean(text, "here") == pytest.approx(expected)
