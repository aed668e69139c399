"""What-if reads the same shapes of request logs as `ingest trace`, by the same code."""

from pathlib import Path

import pandas as pd
import pytest

from autoscaler.whatif.arrivals import read_trace
from autoscaler.whatif.scenario import ScenarioError


def trace(tmp_path: Path, text: str) -> pd.DataFrame:
    (tmp_path / "t.csv").write_text(text)
    return read_trace(str(tmp_path / "t.csv"))


def test_azures_columns_are_read_as_utc(tmp_path: Path) -> None:
    got = trace(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:46.6805900,374,44\n",
    )
    assert got.timestamp.tolist() == [
        pd.Timestamp("2023-11-16T18:15:46.680590Z"),
        pd.Timestamp("2023-11-16T18:15:50.995169Z"),
    ]
    assert got.input_tokens.tolist() == [374, 396]
    assert "requests" not in got


def test_mooncakes_milliseconds_are_seconds_here(tmp_path: Path) -> None:
    got = trace(tmp_path, "timestamp,input_length,output_length\n0,10,1\n3000,20,2\n")
    assert (got.timestamp - got.timestamp[0]).dt.total_seconds().tolist() == [0, 3]


def test_an_interval_that_was_not_measured_stays_missing(tmp_path: Path) -> None:
    got = trace(
        tmp_path,
        "timestamp,requests,input_tokens,output_tokens\n"
        "2024-05-10T00:00:00Z,5,50,5\n2024-05-10T00:10:00Z,,,\n",
    )
    assert got.requests.isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "t_s,rate_rps,mean_input_tokens,mean_output_tokens\n0,1,1,1\n",
            "windows of clients; allowed: `telemetry`",
        ),
        (
            "timestamp,input_tokens,output_tokens\n2024-05-10T00:00:00Z,1,2\n2024-05-10T00:00:00Z,1,x\n",
            "column output_tokens, row 1: 'x'; allowed: a number from 0",
        ),
        ("timestamp,input_tokens,output_tokens\n", "no rows"),
    ],
)
def test_what_cannot_be_replayed_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        trace(tmp_path, text)
