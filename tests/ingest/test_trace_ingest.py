"""Files in, telemetry folder out: `foreserve ingest trace` from end to end."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from autoscaler.cli import run
from models.trace_shapes import TraceError
from training import trace_reader
from training.ingest_trace import Ingested, TraceOptions, ingest_trace
from training.telemetry import read_telemetry

CHAT = "prod/chat"
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:18:50.9951690,396,109
2023-11-16 18:15:59.2224670,879,55
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,API log
"""
# since release 2 of the trace; times go on from the first day of its first file
BURSTGPT_3 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log
19440161.0,,2,ChatGPT,36,29,65,API log
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-12 00:00:00.001163+00:00,2162,5
2024-05-12 00:00:00+00:00,2399,6
"""
MOONCAKE = """{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 59999, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}

{"timestamp": 60000, "input_length": 10, "output_length": 1, "hash_ids": []}
"""
GENERIC = """timestamp,service,input_tokens,output_tokens,variant,ttft_ms,e2e_seconds
2025-01-06T00:00:01Z,prod/a,10,11,h100,500,1.5
2025-01-06T00:01:01Z,prod/b,20,12,h100,,
2025-01-06T00:02:01+00:00,prod/a,30,13,a100,250,1.0
"""


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., Ingested]:
    def call(
        files: Mapping[str, str | bytes], *, force: bool = False, **options: object
    ) -> Ingested:
        paths = []
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
            paths.append(tmp_path / name)
        made = TraceOptions(**options)  # type: ignore[arg-type]
        return ingest_trace(paths, tmp_path / "out", made, force=force)

    return call


def load_of(tmp_path: Path) -> pd.DataFrame:
    return read_telemetry(tmp_path / "out").load


def numbers(tmp_path: Path, column: str = "requests") -> list[float]:
    values: list[float] = load_of(tmp_path)[column].tolist()
    return values


@pytest.mark.parametrize("name", ["azure.csv", "azure.csv.gz"])
def test_azure(ingest: Callable[..., Ingested], tmp_path: Path, name: str) -> None:
    done = ingest({name: AZURE}, service=CHAT)
    assert (done.rows, done.bad_rows, done.notes) == (3, 0, ())
    assert done.first == pd.Timestamp("2023-11-16T18:15Z")  # taken as UTC
    assert numbers(tmp_path) == [2, 0, 0, 1]
    assert numbers(tmp_path, "input_tokens") == [374 + 879, 0, 0, 396]
    assert numbers(tmp_path, "output_tokens") == [99, 0, 0, 109]


def test_azure_with_an_offset_is_not_moved(ingest: Callable[..., Ingested], tmp_path: Path) -> None:
    done = ingest({"a.csv": AZURE_2024}, service=CHAT, zone=ZoneInfo("Asia/Tokyo"))
    assert done.first == pd.Timestamp("2024-05-12T00:00Z")
    assert numbers(tmp_path) == [2]


def test_burstgpt_with_sessions_and_elapsed_time(
    ingest: Callable[..., Ingested], tmp_path: Path
) -> None:
    start = pd.Timestamp("2025-01-06T00:00+08:00").timestamp()
    mapping = {"e2e_seconds": "Elapsed time"}
    done = ingest(
        {"b.csv": BURSTGPT_3}, service=CHAT, start_seconds=start, mapping=mapping, variant="api"
    )
    assert done.first.timestamp() == (start + 19_440_110) // 60 * 60  # day 225, 00:01:50
    assert numbers(tmp_path) == [1, 1]
    assert numbers(tmp_path, "input_tokens") == [906, 36]
    # begun at 110 s and 161 s of the day, ended at 153 s and 163 s: both in the third minute
    serving = read_telemetry(tmp_path / "out").serving
    assert serving.finished_requests.tolist() == [0, 2]


def test_burstgpt_by_service_and_by_model(ingest: Callable[..., Ingested], tmp_path: Path) -> None:
    start = pd.Timestamp("2025-01-06T00:00Z").timestamp()
    ingest({"b.csv": BURSTGPT}, service=CHAT, start_seconds=start)
    assert numbers(tmp_path) == [2, 1]
    assert load_of(tmp_path).ts[0] == pd.Timestamp("2025-01-06T00:00Z")
    done = ingest({"b.csv": BURSTGPT}, mapping={"service": "Model"}, force=True)
    assert done.services == 2
    assert any("1970-01-01" in note for note in done.notes)
    assert any("no ScalingPolicy" in note for note in done.notes)


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz", "m.ndjson"])
def test_mooncake(ingest: Callable[..., Ingested], tmp_path: Path, name: str) -> None:
    ingest({name: MOONCAKE}, service=CHAT, start_seconds=0.0)
    assert numbers(tmp_path) == [2, 1]
    assert numbers(tmp_path, "input_tokens") == [6758 + 7322, 10]


def test_servegen_windows_of_several_clients(
    ingest: Callable[..., Ingested], tmp_path: Path
) -> None:
    frame = pd.DataFrame(
        {
            "service": "m/large",
            "client": [0, 0, 0, 1, 1, 1],
            "t_s": [0, 600, 1200, 0, 600, 1200],
            "rate_rps": [1.0, 0.0, 0.5, 2.0, 0.0, np.nan],
            "mean_input_tokens": [100.0, np.nan, 10.0, 50.0, 50.0, 50.0],
            "mean_output_tokens": [10.0, 5.0, 1.0, 20.0, 20.0, 20.0],
        }
    )
    done = ingest({"s.csv": frame.to_csv(index=False)})
    assert done.step_seconds == 600.0
    # 600 * (1 + 2); nothing came; the third window of a client was not measured
    assert numbers(tmp_path) == [1800, 0]
    assert numbers(tmp_path, "input_tokens") == [600 * 100 + 1200 * 50, 0]
    assert numbers(tmp_path, "output_tokens") == [600 * 10 + 1200 * 20, 0]
    with pytest.raises(TraceError, match=r"--step: 60 s, but a row .* is a window of 600 s"):
        ingest({"s.csv": frame.to_csv(index=False)}, step_seconds=60.0, force=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_generic_with_latencies_is_the_same_from_every_format(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "source.csv").write_text(GENERIC)
    frame = pd.read_csv(tmp_path / "source.csv")
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        frame.assign(
            timestamp=pd.to_datetime(frame.timestamp, format="ISO8601", utc=True)
        ).to_parquet(path)
    elif suffix == "jsonl":
        path.write_text(frame.to_json(orient="records", lines=True))
    else:
        path.write_text(GENERIC)
    done = ingest_trace([path], tmp_path / "out", TraceOptions())
    assert (done.services, done.load_rows, done.serving_rows) == (2, 6, 9)
    telemetry = read_telemetry(tmp_path / "out")
    assert telemetry.load.requests.tolist() == [1, 0, 1, 0, 1, 0]
    h100 = telemetry.serving.query("service == 'prod/a' and variant == 'h100'")
    assert h100.arrival_rate_rps.tolist() == [1 / 60, 0, 0]
    # 0.5 s to the first token and 1.0 s for the ten others
    assert h100.ttft_p99_seconds.iloc[0] == pytest.approx(0.5, rel=0.005)
    assert h100.tpot_p99_seconds.iloc[0] == pytest.approx(0.1, rel=0.005)
    assert telemetry.serving.ready_replicas.isna().all()


def test_latencies_without_a_variant_are_not_attributed(
    ingest: Callable[..., Ingested], tmp_path: Path
) -> None:
    text = GENERIC.replace("variant", "region")
    done = ingest({"g.csv": text})
    assert not (tmp_path / "out" / "serving.parquet").exists()
    assert any("--variant" in note for note in done.notes)
    assert ingest({"g.csv": text}, variant="h100", force=True).serving_rows == 6


def test_columns_of_any_name_and_zone(ingest: Callable[..., Ingested], tmp_path: Path) -> None:
    text = "at,route,in,out\n2025-01-06 01:00:00,prod/a,1,2\n2025-01-06 01:01:00,prod/a,3,4\n"
    mapping = {"timestamp": "at", "service": "route", "input_tokens": "in", "output_tokens": "out"}
    with pytest.raises(TraceError, match="column at: 2025-01-06 01:00:00 has no time zone"):
        ingest({"x.csv": text}, mapping=mapping)
    ingest({"x.csv": text}, mapping=mapping, zone=ZoneInfo("Europe/Berlin"))
    assert load_of(tmp_path).ts[0] == pd.Timestamp("2025-01-06T00:00Z")


def test_bad_rows_are_counted_and_the_first_is_named(
    ingest: Callable[..., Ingested], tmp_path: Path
) -> None:
    text = "\n".join(
        [
            "timestamp,service,input_tokens,output_tokens",
            *["2025-01-06T00:00:00Z,prod/a,1,2"] * 6,
            "",  # blank lines are no rows, but they count as lines
            "2025-01-06T00:00:00Z,prod/a,1",
            "2025-01-06T00:00:00Z,prod/a,one,2",
            "2025-01-06T00:00:00Z,prod/a,1,2",
        ]
    )
    with pytest.raises(
        TraceError,
        match=r"x.csv: line 9, field \(line\): '3 fields.*'; allowed: 4 fields; 2 of 9 rows are bad",
    ):
        ingest({"x.csv": text}, max_bad_ratio=0.2)
    assert not (tmp_path / "out").exists()
    done = ingest({"x.csv": text}, max_bad_ratio=0.25)
    assert (done.rows, done.bad_rows) == (9, 2)
    assert numbers(tmp_path) == [7]
    assert "line 9" in done.notes[0]


def test_bad_lines_of_json_are_named(ingest: Callable[..., Ingested], tmp_path: Path) -> None:
    good = json.dumps({"timestamp": 1, "service": "a/a", "input_tokens": 1, "output_tokens": 2})
    text = "\n".join([good, '{"timestamp": 1, ', good, "[1]", good.replace("2}", "true}")])
    with pytest.raises(TraceError, match=r"line 2, .*allowed: a JSON object a line; 3 of 5"):
        ingest({"x.jsonl": text})
    ingest({"x.jsonl": text}, max_bad_ratio=0.6)
    assert numbers(tmp_path) == [2]


def test_chunks_do_not_matter(
    ingest: Callable[..., Ingested], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "timestamp": rng.integers(0, 3000, 400),
            "service": rng.choice(["a/a", "b/b"], 400),
            "input_tokens": rng.integers(0, 100, 400),
            "output_tokens": rng.integers(0, 100, 400),
        }
    )
    text = frame.to_csv(index=False).replace("a/a,7,", "a/a,x,")
    ingest({"x.csv": text}, max_bad_ratio=0.5)
    whole = load_of(tmp_path)
    monkeypatch.setattr(trace_reader, "BLOCK_BYTES", 300)
    ingest({"x.csv": text}, max_bad_ratio=0.5, force=True)
    pd.testing.assert_frame_equal(load_of(tmp_path), whole)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"x.csv": AZURE}, {}, "no column names the service .format azure.; allowed: --service"),
        ({"x.csv": ""}, {"service": CHAT}, "x.csv: empty"),
        ({"x.csv": AZURE.splitlines()[0]}, {"service": CHAT}, "no whole step with requests"),
        (
            {"x.jsonl": "nonsense\n"},
            {"service": CHAT},
            "is missing .format generic.; there are: none",
        ),
        ({"x.parquet": "nonsense"}, {"service": CHAT}, "x.parquet: not readable"),
        ({"x.txt": AZURE}, {"service": CHAT}, "not a request log by its name; allowed: .csv"),
        ({"x.csv": AZURE}, {"service": CHAT, "step_seconds": 0.5}, "--step: 0.5 s"),
        ({"x.csv": AZURE}, {"service": CHAT, "max_bad_ratio": 1.0}, "--max-bad-ratio: 1"),
        ({}, {"service": CHAT}, "FILE: none given"),
        (
            {"x.csv": AZURE, "y.csv": "timestamp,requests,input_tokens,output_tokens\n0,1,1,1\n"},
            {"service": CHAT},
            "rows are of kind totals, those before of kind request",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    ingest: Callable[..., Ingested],
    tmp_path: Path,
    files: Mapping[str, str],
    options: Mapping[str, object],
    message: str,
) -> None:
    with pytest.raises(TraceError, match=message):
        ingest(files, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(files)


WINDOWS = "t_s,rate_rps,mean_input_tokens,mean_output_tokens\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0,1,1,1\n",), "one window only"),
        (("0,1,1,1\n0.5,1,1,1\n",), "windows 0.5 s apart; allowed: whole seconds"),
        (("300,1,1,1\n900,1,1,1\n",), "a window starts at 1970-01-01T00:05:00"),
        (
            ("0,1,1,1\n600,1,1,1\n", "1200,1,1,1\n1500,1,1,1\n"),
            "1.csv: windows of 300 s, those before of 600 s",
        ),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    ingest: Callable[..., Ingested], rows: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        ingest({f"{n}.csv": WINDOWS + text for n, text in enumerate(rows)}, service=CHAT)


def test_a_file_of_noise_is_told_in_one_readable_sentence(
    ingest: Callable[..., Ingested],
) -> None:
    noise = np.random.default_rng(1).bytes(50_000)
    for name in ("x.csv", "x.jsonl"):
        with pytest.raises(TraceError) as error:
            ingest({name: noise}, service=CHAT)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1500
    many = ",".join(f"c{n}" for n in range(1001))
    with pytest.raises(TraceError, match="1001 columns; allowed: 1000"):
        ingest({"x.csv": many}, service=CHAT)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(AZURE.encode())[:-12])
    with pytest.raises(TraceError, match="damaged or incomplete gzip"):
        ingest_trace([path], tmp_path / "out", TraceOptions(service=CHAT))
    assert not (tmp_path / "out").exists()


def test_an_endless_line_is_refused(
    ingest: Callable[..., Ingested], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_reader, "BLOCK_BYTES", 100)
    monkeypatch.setattr(trace_reader, "MAX_LINE_BYTES", 1000)
    with pytest.raises(TraceError, match="a line of more than 1000 bytes"):
        ingest({"x.csv": AZURE + "9" * 5000}, service=CHAT)


def test_the_same_file_twice_would_count_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(AZURE)
    with pytest.raises(TraceError, match="given twice"):
        ingest_trace([path, path], tmp_path / "out", TraceOptions(service=CHAT))


def test_a_folder_is_replaced_only_with_force_and_only_if_it_is_telemetry(
    ingest: Callable[..., Ingested], tmp_path: Path
) -> None:
    ingest({"x.csv": AZURE}, service=CHAT)
    with pytest.raises(
        TraceError, match="exists and is not empty; allowed: a new folder, or --force"
    ):
        ingest({"x.csv": AZURE}, service="prod/b")
    (tmp_path / "out" / "startups.parquet").write_text("of another service")
    with pytest.raises(TraceError, match="line 2"):  # fails: what was there stays
        ingest({"x.csv": AZURE.replace("374", "-1")}, service="prod/b", force=True)
    assert load_of_service(tmp_path) == [CHAT]
    ingest({"x.csv": AZURE}, service="prod/b", force=True)
    assert load_of_service(tmp_path) == ["prod/b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.csv"]
    (tmp_path / "out" / "thesis.tex").write_text("dear")
    with pytest.raises(TraceError, match=r"thesis\.tex, which is no telemetry"):
        ingest({"x.csv": AZURE}, service=CHAT, force=True)


def test_a_full_disk_leaves_what_was_there(
    ingest: Callable[..., Ingested], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest({"x.csv": AZURE}, service=CHAT)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        ingest({"x.csv": AZURE}, service="prod/b", force=True)
    assert load_of_service(tmp_path) == [CHAT]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.csv"]


def load_of_service(tmp_path: Path) -> list[str]:
    return sorted(set(pd.read_parquet(tmp_path / "out" / "load.parquet").service))


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.csv").write_text(AZURE)
    base = ["foreserve", "ingest", "trace", str(tmp_path / "x.csv"), "--out", str(tmp_path / "out")]

    def status(*more: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [*base, *more])
        code = run()
        return code, capsys.readouterr().err

    for options, message in (
        (("--service", "chat"), "--service: 'chat'; allowed: NAMESPACE/NAME"),
        (("--service", CHAT, "--step", "60"), "--step: '60'; allowed: whole numbers with a unit"),
        (("--service", CHAT, "--time-zone", "Mars"), "--time-zone: 'Mars'; allowed: an IANA name"),
        (("--service", CHAT, "--start", "2025-01-06"), "--start: '2025-01-06' has no time zone"),
        (("--service", CHAT, "--columns", "when=x"), "--columns: 'when=x'; allowed"),
        (("--service", CHAT, "--format", "mooncake"), "input_length, output_length is missing"),
    ):
        code, text = status(*options)
        assert code == 2
        assert message in text
        assert len(text.splitlines()) == 1
    assert status("--service", CHAT, "--step", "2m", "--partial-steps")[0] == 0
    assert numbers(tmp_path) == [2, 0, 1]  # from 18:14, 18:16 and 18:18
    assert status("--service", CHAT, "--step", "2m", "--force")[0] == 0
    assert numbers(tmp_path) == [0]  # the log covers the first and the last in part
