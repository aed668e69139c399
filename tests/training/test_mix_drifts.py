"""A class of traffic that drifts within a backtest is told by service and class: terminal, JSON and page."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from traffic_world import (
    CHAT,
    DAY,
    DOCUMENTS,
    START,
    STEP,
    chat_and_documents,
    chat_only,
    documents_share,
    load_of,
    series_of,
)
from typer.testing import CliRunner

from autoscaler.cli import app
from models.frames import LOAD_NUMBERS, LoadSeries
from models.mix_drift import Drift, spans_of
from training.mix_drifts import mix_drifts

MIXED, PLAIN = "a/mixed", "b/plain"
DAYS = 8
NOON = DAYS * DAY + DAY // 2
DRIFTED = slice(NOON, NOON + 10)  # two hours and a half


def drifting() -> LoadSeries:
    """Documents at noon of the ninth day, six of ten requests, where none ever were."""
    steps = (DAYS + 1) * DAY
    share = documents_share(steps)
    share[DRIFTED] = 0.6
    return series_of(
        **{MIXED: load_of(np.full(steps, 300.0), share, 9), PLAIN: chat_only(DAYS + 1, 8)}
    )


def asked(series: LoadSeries) -> pd.DataFrame:
    steps = np.arange(DAYS * DAY, (DAYS + 1) * DAY - 2, 2)
    at = pd.to_datetime(START + steps * STEP, unit="s", utc=True)
    return pd.concat([pd.DataFrame({"service": s, "cutoff": at}) for s in series.services])


def test_what_drifted_is_told_by_service_and_class_and_when() -> None:
    series = drifting()
    found = mix_drifts(series, asked(series))
    assert {span.service for span in found} == {MIXED}
    for span in found:
        assert span.what == "share"
        assert any(span.lengths == pytest.approx(c, rel=0.1) for c in (CHAT, DOCUMENTS))
        # an hour of it is needed; the last full hour of it ends with it
        assert span.first_seconds == START + (NOON + 5) * STEP
        assert span.last_seconds == START + (NOON + 9) * STEP
        assert (span.moments, span.looked_at) == (3, DAY // 2 - 1)
        assert "mix drifted: requests of about" in span.sentence


def test_nothing_is_told_of_days_like_all_others_nor_without_tokens() -> None:
    calm = series_of(**{MIXED: chat_and_documents(DAYS + 1), PLAIN: chat_only(DAYS + 1)})
    assert mix_drifts(calm, asked(calm)) == ()
    untold = drifting()
    untold.values[:, :, 1:] = np.nan
    assert mix_drifts(untold, asked(untold)) == ()


def test_a_class_is_the_same_through_refits_and_another_is_another() -> None:
    drift = Drift(0, "share", 0.6, 0.0, 0.1)
    lengths = np.array([[500.0, 200.0], [8000.0, 100.0], [520.0, 190.0], [0.0, 0.0]])
    drifts = (drift, Drift(1, "length", 0.5, 0.0, 0.2), Drift(2, "share", 0.7, 0.0, 0.1), None)
    found = spans_of(["s"] * 4, np.array([3.0, 2.0, 1.0, 4.0]), drifts, lengths)
    assert [(s.what, s.moments, s.looked_at) for s in found] == [("share", 2, 4), ("length", 1, 4)]
    assert (found[0].first_seconds, found[0].last_seconds) == (1.0, 3.0)
    assert "60%" in found[0].sentence  # the last one


def load_frame(series: LoadSeries) -> pd.DataFrame:
    at = pd.to_datetime(START + np.arange(series.values.shape[1]) * STEP, unit="s", utc=True)
    return pd.concat(
        [
            pd.DataFrame({"ts": at, "service": name, **dict(zip(LOAD_NUMBERS, own.T, strict=True))})
            for name, own in zip(series.services, series.values, strict=True)
        ]
    )


def test_the_command_tells_in_the_terminal_as_json_and_on_the_page(tmp_path: Path) -> None:
    series = drifting()
    load_frame(series).to_parquet(tmp_path / "load.parquet")
    asked(series).to_parquet(tmp_path / "cutoffs.parquet")
    command = ["backtest", "--load", "load.parquet", "--cutoffs", "cutoffs.parquet"]
    files = {kind: str(tmp_path / f"b.{kind}") for kind in ("json", "html")}
    command = [str(tmp_path / c) if c.endswith(".parquet") else c for c in command]
    result = CliRunner().invoke(app, [*command, "--json", files["json"], "--report", files["html"]])
    assert result.exit_code == 0, result.output
    terminal = " ".join(result.stdout.replace("│", " ").split())
    assert f"{MIXED} 3 of 47" in terminal
    assert "mix drifted" in terminal
    assert PLAIN not in terminal
    told = json.loads(Path(files["json"]).read_text())
    assert set(told["services"]) == {MIXED, PLAIN}
    assert 0.0 < told["services"][MIXED]["coverage_ratio"]["0.9"] <= 1.0
    for drift in told["mix_drifts"]:
        assert drift["service"] == MIXED
        assert drift["cutoffs"] == 3
        assert drift["sentence"].startswith("mix drifted: requests of about")
    page = unescape(Path(files["html"]).read_text())
    sentences = {d["sentence"] for d in told["mix_drifts"]}
    assert sentences
    assert all(sentence in page for sentence in sentences)
    assert re.search(r"<td>3 of 47</td>", page)


def test_without_a_drift_the_terminal_is_silent(tmp_path: Path) -> None:
    calm = series_of(**{PLAIN: chat_only(4)})
    load_frame(calm).to_parquet(tmp_path / "load.parquet")
    out, page = tmp_path / "out.parquet", tmp_path / "b.html"
    command = ["backtest", "--load", str(tmp_path / "load.parquet"), "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--report", str(page)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert out.exists()
    assert "No class of traffic drifted at any cutoff" in page.read_text()
