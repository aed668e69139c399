"""The command line from outside: what PROTOCOL.md promises, and every kind of bad input."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from foreserve_process import Done, cold, run
from telemetry_maker import (
    END_SECONDS,
    POLICY,
    SERVICE,
    START,
    load_frame,
    serving_frame,
    write_telemetry,
)


def last_line(result: Done) -> str:
    lines = [line for line in result.stderr.splitlines() if not line.startswith("INFO")]
    return lines[-1] if lines else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with telemetry, policies and trained models."""
    root = tmp_path_factory.mktemp("world")
    write_telemetry(root / "telemetry")
    (root / "policies.yaml").write_text(POLICY)
    result = run(
        "train",
        "--telemetry",
        root / "telemetry",
        "--models",
        root / "models",
        "--json",
        root / "t.json",
    )
    assert result.returncode == 0, result.stderr
    return root


def line(tick: int, **changes: Any) -> str:
    variant = {
        "ready": 2,
        "starting": 0,
        "draining": 0,
        "desired": 2,
        "running": 4.0,
        "waiting": 0.0,
        "kv_cache_usage_ratio": 0.2,
        "ttft_p50_seconds": 0.1,
        "ttft_p95_seconds": 0.3,
        "ttft_p99_seconds": 0.4,
        "tpot_p50_seconds": 0.02,
        "tpot_p95_seconds": 0.03,
        "tpot_p99_seconds": 0.04,
        "finished_requests": 30,
        "slo_attainment_ratio": 1.0,
    }
    service = {
        "arrival_rate_rps": 2.0,
        "isl_tokens": 1000.0,
        "osl_tokens": 100.0,
        "variants": {"h100": variant},
    }
    observation = {
        "now_seconds": END_SECONDS + 15.0 * (tick + 1),
        "interval_seconds": 15.0,
        "services": {SERVICE: service},
        "pools": {"h100": {"total_gpus": 32}},
    }
    return json.dumps({**observation, **changes}) + "\n"


def decide(world: Path, stdin: str, *more: object, by: Callable[..., Done] = run) -> Done:
    history = world / "telemetry" / "load.parquet"
    return by(
        "decide",
        "--models",
        world / "models",
        "--policies",
        world / "policies.yaml",
        "--history",
        history,
        *more,
        stdin=stdin,
    )


def test_training_says_what_it_did(world: Path) -> None:
    summary = json.loads((world / "t.json").read_text())
    service = summary["services"][SERVICE]
    assert summary["promotion"]["load"]["promoted"] is True
    assert service["load"]["winner"]
    assert service["latency"]["h100"]["windows"] > 500
    assert service["lead_time"]["h100"]["starts"] == 30


def test_one_decision_a_line_and_the_same_bytes_every_time(world: Path) -> None:
    stdin = "".join(line(i) for i in range(12))
    first, second = decide(world, stdin, by=cold), decide(world, stdin)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    decisions = [json.loads(text) for text in first.stdout.splitlines()]
    assert len(decisions) == 12
    service = decisions[-1]["services"][SERVICE]
    assert isinstance(service["variants"]["h100"]["replicas"], int)
    assert 0.0 < service["forecast_arrival_rate_rps"] < 10.0
    assert service["cost_usd_per_hour"] == 4.0 * service["variants"]["h100"]["replicas"]
    assert service["predicted_ttft_p95_seconds"] > 0


def test_replay_agrees_and_notices_a_changed_byte(world: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    assert decide(world, "".join(line(i) for i in range(8)), "--log", log).returncode == 0
    good = run("replay", log, "--models", world / "models")
    assert good.returncode == 0, good.stderr
    assert "8 decisions replayed, 0 differ" in good.stdout
    at = run("replay", log, "--models", world / "models", "--at", END_SECONDS + 50)
    assert json.loads(at.stdout)["now_seconds"] == END_SECONDS + 45
    log.write_text(log.read_text().replace('"replicas":', '"replicas": ', 1))
    assert run("replay", log, "--models", world / "models").returncode == 1


def test_a_closed_hour_is_explained_and_replay_passes_it_over(world: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    assert END_SECONDS % 3600 == 0
    stdin = "".join(line(i) for i in range(242))
    assert decide(world, stdin, "--log", log).returncode == 0
    records = [json.loads(text) for text in log.read_text().splitlines()]
    (accounts,) = [r["services"][SERVICE] for r in records if r["kind"] == "accounts"]
    assert (accounts["start_seconds"], accounts["measured_seconds"]) == (END_SECONDS, 3600.0)
    *five, hour, because = run("explain", SERVICE, "--log", log).stdout.splitlines()
    assert len(five) == 5
    assert f"${accounts['plans']['foreserve']['usd']:,.2f}, " in hour
    assert "; clairvoyant $" in hour
    assert because.startswith("  because ")
    shown = run("explain", SERVICE, "--log", log, "--json")
    assert json.loads(shown.stdout)["hour"] == accounts
    before = run("explain", SERVICE, "--log", log, "--at", records[20]["decision"]["now_seconds"])
    assert len(before.stdout.splitlines()) == 5
    again = run("replay", log, "--models", world / "models")
    assert "242 decisions replayed, 0 differ" in again.stdout


def test_a_decision_is_explained_in_five_lines(world: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    assert decide(world, "".join(line(i) for i in range(8)), "--log", log).returncode == 0
    told = run("explain", SERVICE, "--log", log)
    assert told.returncode == 0, told.stderr
    first, load, fleet, needed, so = told.stdout.splitlines()
    decision = json.loads(log.read_text().splitlines()[-1])["decision"]["services"][SERVICE]
    replicas = decision["variants"]["h100"]["replicas"]
    assert first.startswith(f"{SERVICE} at 2026-")
    assert f": {replicas} replicas" in first
    assert first.endswith(f"[{decision['reason']}] {decision['detail']}")
    assert "req/s now" in load
    assert "95 % sure below" in load
    assert "h100:" in fleet
    assert "of 1 s allowed" in fleet
    assert f"{decision['required_replicas']} replicas to hold the SLO for" in needed
    assert "(99.0% asked, 100% of the error budget left)" in needed
    assert f"${decision['cost_usd_per_hour']:,.2f} an hour" in so

    shown = run("explain", SERVICE, "--log", log, "--json", "--at", END_SECONDS + 50)
    content = json.loads(shown.stdout)
    assert content["now_seconds"] == END_SECONDS + 45
    assert content["hour"] is None
    assert content["decision"]["reason"]
    before = run("explain", SERVICE, "--log", log, "--at", "2020-01-01")
    assert before.returncode == 2
    assert "no decision for prod/chat at or before that time" in before.stderr


def test_a_bad_line_gets_an_error_and_the_stream_goes_on(world: Path) -> None:
    bad = '{"now_seconds": "noon", "interval_seconds": 15.0, "services": {}}\n'
    result = decide(world, line(0) + bad + "not json\n" + line(1) + line(0))
    answers = [json.loads(text) for text in result.stdout.splitlines()]
    assert result.returncode == 0
    assert [("services" in a) for a in answers] == [True, False, False, True, False]
    assert answers[1]["error"]["line"] == 2
    assert answers[1]["error"]["field"] == "now_seconds"
    assert answers[4]["error"]["field"] == "now_seconds"  # time went backwards


def test_every_line_is_answered_blank_huge_or_binary(world: Path) -> None:
    big = json.loads(line(1))
    big["services"][SERVICE]["arrival_rate_rps"] = 1e300
    bad = "\n" + json.dumps(big) + "\n" + "\u0000\ufffd\n" + '{"now_seconds": 1e999}\n'
    result = decide(world, line(0) + bad + "".join(line(i) for i in range(2, 8)))
    answers = [json.loads(text) for text in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert [a.get("error", {}).get("line") for a in answers] == [None, 2, 3, 4, 5] + [None] * 6
    assert answers[2]["error"]["field"] == f"services.{SERVICE}.arrival_rate_rps"


def test_a_name_that_is_no_text_is_logged_and_replayed(world: Path, tmp_path: Path) -> None:
    services = json.loads(line(0))["services"]
    odd = line(0, services={**services, "prod/\ud800": services[SERVICE]})
    log = tmp_path / "decisions.jsonl"
    assert decide(world, odd, "--log", log).returncode == 0
    assert run("replay", log, "--models", world / "models").returncode == 0


def logged(world: Path, log: Path) -> list[str]:
    assert decide(world, "".join(line(i) for i in range(4)), "--log", log).returncode == 0
    return log.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"plan_status": "separable"}, "an hour"),
        (
            {"plan_status": "incumbent", "plan_gap_ratio": 0.0123},
            "; the solver stopped at its bound: at most 1.2% of the cost of all plans could be saved",
        ),
        ({"plan_status": "incumbent", "plan_gap_ratio": None}, "; the solver stopped at its bound"),
        (
            {"plan_status": "greedy", "plan_gap_ratio": None},
            "; planned by priority, since the solver found no plan",
        ),
    ],
)
def test_a_plan_that_is_not_proven_is_explained_as_such(
    world: Path, tmp_path: Path, plan: dict[str, Any], said: str
) -> None:
    log = tmp_path / "decisions.jsonl"
    *lines, last = logged(world, log)
    tick = json.loads(last)
    tick["decision"] |= plan
    log.write_text("".join([*lines, json.dumps(tick) + "\n"]))
    assert run("explain", SERVICE, "--log", log).stdout.splitlines()[-1].endswith(said)


def test_a_log_that_is_none_is_one_sentence(world: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    lines = logged(world, log)
    header, tick = json.loads(lines[0]), json.loads(lines[4])
    short = {**tick["outlooks"][SERVICE], "quantiles": [0.5]}
    ticks = [{**tick, "outlooks": [1]}, {**tick, "outlooks": {SERVICE: short}}]
    texts = {
        "line 1": ["", "[]\n", json.dumps({**header, "documents": [1]}) + "\n", "\udcff\udcfe\n"],
        "line 2": [lines[0] + "\udc80\n", *(lines[0] + json.dumps(t) + "\n" for t in ticks)],
        "line 5": ["".join(lines)[:-300]],
    }
    for where, logs in texts.items():
        for text in logs:
            log.write_bytes(text.encode("utf-8", "surrogateescape"))
            result = run("replay", log, "--models", world / "models")
            assert result.returncode == 2, result.stderr
            assert len(result.stderr.splitlines()) == 1, result.stderr
            assert where in result.stderr


def test_silence_and_unknown_services(world: Path) -> None:
    silent = line(1, services={SERVICE: None})
    other = line(2, services={**json.loads(line(2))["services"], "prod/other": {"variants": {}}})
    result = decide(world, line(0) + silent + other)
    held = json.loads(result.stdout.splitlines()[1])["services"][SERVICE]
    assert held["variants"]["h100"]["replicas"] >= 1
    assert held["reason"] == "stale-telemetry"
    assert "prod/other" not in json.loads(result.stdout.splitlines()[2])["services"]
    assert "prod/other: telemetry but no policy" in result.stderr


def test_a_policy_without_telemetry_is_decided_too(world: Path, tmp_path: Path) -> None:
    extra = tmp_path / "more.yaml"
    document = POLICY.split("---")[1].replace("name: chat", "name: new")
    extra.write_text(document.replace("name: chat}", "name: new}"))
    result = decide(world, line(0), "--policies", extra)
    assert result.returncode == 0, result.stderr
    fresh = json.loads(result.stdout)["services"]["prod/new"]
    assert fresh["reason"] == "fallback"
    assert fresh["variants"]["h100"]["replicas"] == 20  # nothing is known: never the minimum


Break = Callable[[Path], None]


def drop_column(folder: Path) -> None:
    load_frame().drop(columns="input_tokens").to_parquet(folder / "load.parquet")


def milliseconds(folder: Path) -> None:
    frame = serving_frame()
    frame["tpot_p50_seconds"] *= 1e3 * 100
    frame.to_parquet(folder / "serving.parquet")


def naive_times(folder: Path) -> None:
    frame = load_frame()
    frame.assign(ts=frame.ts.dt.tz_localize(None)).to_parquet(folder / "load.parquet")


def duplicates(folder: Path) -> None:
    frame = load_frame()
    pd.concat([frame, frame.assign(requests=1.0)]).to_parquet(folder / "load.parquet")


def negative(folder: Path) -> None:
    load_frame().assign(requests=-1.0).to_parquet(folder / "load.parquet")


def not_parquet(folder: Path) -> None:
    (folder / "load.parquet").write_text("service,requests\n")


def nothing_known(folder: Path) -> None:
    load_frame().assign(requests=np.nan).to_parquet(folder / "load.parquet")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (drop_column, ["load.parquet", "'input_tokens'", "missing"]),
        (milliseconds, ["serving.parquet", "tpot_p50_seconds", "milliseconds"]),
        (naive_times, ["load.parquet", "'ts'", "time zone"]),
        (duplicates, ["load.parquet", "2880 duplicate rows"]),
        (negative, ["load.parquet", "requests", ">= 0"]),
        (not_parquet, ["load.parquet", "Parquet"]),
        (nothing_known, ["load.parquet", "no known value"]),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_bad_telemetry_is_one_sentence_and_loses_nothing(
    world: Path, tmp_path: Path, harm: Break, words: list[str]
) -> None:
    shutil.copytree(world / "telemetry", tmp_path / "telemetry")
    shutil.copytree(world / "models", tmp_path / "models")
    before = (tmp_path / "models" / "current.json").read_bytes()
    harm(tmp_path / "telemetry")
    result = run("train", "--telemetry", tmp_path / "telemetry", "--models", tmp_path / "models")
    assert result.returncode == 2, result.stderr
    assert all(word in last_line(result) for word in words), last_line(result)
    assert (tmp_path / "models" / "current.json").read_bytes() == before


def test_an_all_nan_service_and_a_young_one_do_not_stop_the_others(tmp_path: Path) -> None:
    folder = write_telemetry(tmp_path / "telemetry")
    dead = load_frame(service="prod/dead").assign(requests=np.nan)
    young = load_frame(20, service="prod/young")
    pd.concat([load_frame(), dead, young]).to_parquet(folder / "load.parquet")
    result = run(
        "train", "--telemetry", folder, "--models", tmp_path / "m", "--json", tmp_path / "t.json"
    )
    assert result.returncode == 0, result.stderr
    services = json.loads((tmp_path / "t.json").read_text())["services"]
    assert set(services) == {SERVICE, "prod/dead", "prod/young"}
    assert services["prod/dead"]["load"]["trusted"] is False
    assert services["prod/young"]["load"]["trusted"] is False


def test_twenty_minutes_of_history_train_and_decide(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "telemetry"
    folder.mkdir()
    load_frame(20).to_parquet(folder / "load.parquet")
    result = run("train", "--telemetry", folder, "--models", tmp_path / "models")
    assert result.returncode == 0, result.stderr
    at = START.timestamp() + 20 * 60 + 15
    command = ["decide", "--models", tmp_path / "models", "--policies", world / "policies.yaml"]
    answer = run(*command, "--history", folder / "load.parquet", stdin=line(0, now_seconds=at))
    decision = json.loads(answer.stdout)["services"][SERVICE]
    assert decision["reason"] == "stabilizing"  # concurrency asks for fewer than run
    assert decision["predicted_attainment_ratio"] is None  # no speed was learned


def test_newer_models_are_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "models", tmp_path / "models")
    current = tmp_path / "models" / "current.json"
    current.write_text(json.dumps({**json.loads(current.read_text()), "format_version": 99}))
    command = ("decide", "--models", tmp_path / "models", "--policies", world / "policies.yaml")
    result = run(*command, stdin=line(0))
    assert result.returncode == 2
    assert "format_version 99 is newer" in last_line(result)


def test_damaged_models_are_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "models", tmp_path / "models")
    victim = next((tmp_path / "models").glob("g-*/latency/*"))
    victim.write_bytes(victim.read_bytes()[:-10])
    command = ("decide", "--models", tmp_path / "models", "--policies", world / "policies.yaml")
    result = run(*command, stdin=line(0))
    assert result.returncode == 2
    assert "checksum" in last_line(result)


Damage = Callable[[Path], None]


def no_manifest(models: Path) -> None:
    next(models.glob("g-*/manifest.json")).unlink()


def manifest_without_files(models: Path) -> None:
    next(models.glob("g-*/manifest.json")).write_text('{"format_version": 1}')


def manifest_of_names(models: Path) -> None:
    text = '{"format_version": 1, "files": ["load/load.json"]}'
    next(models.glob("g-*/manifest.json")).write_text(text)


def a_file_cut_short(models: Path) -> None:
    victim = next(models.glob("g-*/load/load.npz"))
    victim.write_bytes(victim.read_bytes()[:-10])


def pointer_to_nowhere(models: Path) -> None:
    (models / "current.json").write_text('{"format_version": 1, "generation": null}')


@pytest.mark.parametrize(
    "harm",
    [no_manifest, manifest_without_files, manifest_of_names, a_file_cut_short, pointer_to_nowhere],
    ids=lambda x: x.__name__,
)
def test_training_again_repairs_a_damaged_registry(
    world: Path, tmp_path: Path, harm: Damage
) -> None:
    models = tmp_path / "models"
    shutil.copytree(world / "models", models)
    harm(models)
    command = ("decide", "--models", models, "--policies", world / "policies.yaml")
    refused = run(*command, stdin=line(0))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    short = tmp_path / "telemetry"
    short.mkdir()
    load_frame(60).to_parquet(short / "load.parquet")
    again = run("train", "--telemetry", short, "--models", models)
    assert again.returncode == 0, again.stderr
    assert "WARNING" in again.stderr
    assert run(*command, stdin=line(0)).returncode == 0


def test_newer_models_are_not_trained_over(world: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(world / "models", models)
    current = models / "current.json"
    current.write_text(json.dumps({**json.loads(current.read_text()), "format_version": 99}))
    before = current.read_bytes()
    result = run("train", "--telemetry", world / "telemetry", "--models", models)
    assert result.returncode == 2
    assert "newer" in last_line(result)
    assert current.read_bytes() == before


def five_minutes(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[::5]


def half_minutes(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.assign(ts=frame.ts + pd.Timedelta(seconds=30))])


def no_times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ts=pd.Series(pd.NaT, index=frame.index, dtype="datetime64[ns, UTC]"))


@pytest.mark.parametrize(
    ("change", "words"),
    [(five_minutes, "300 s"), (half_minutes, "60 s"), (no_times, "'ts'")],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_a_history_of_another_step_is_refused(
    world: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    history = tmp_path / "history.parquet"
    change(load_frame()).to_parquet(history)
    result = decide(world, line(0), "--history", history)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "history.parquet" in result.stderr
    assert words in result.stderr


def test_a_latency_model_or_window_that_is_none(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    windows = tmp_path / "windows.parquet"
    serving_frame(5).to_parquet(windows)
    ask = ("latency", "predict", "--model", model, "--serving", windows, "--out", tmp_path / "o")
    for text in ("", "[]", '"x"', '{"format": 1}'):
        (model / "latency.json").write_text(text)
        result = run(*ask)
        assert result.returncode == 2, result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
    serving_frame(5).assign(isl_tokens="long").to_parquet(windows)
    result = run(*ask)
    assert result.returncode == 2
    assert "'isl_tokens'" in result.stderr


def test_latency_on_its_own(world: Path, tmp_path: Path) -> None:
    serving = world / "telemetry" / "serving.parquet"
    assert run("latency", "fit", "--serving", serving, "--out", tmp_path / "m").returncode == 0
    windows = serving_frame(50)[
        ["service", "variant", "ready_replicas", "arrival_rate_rps", "isl_tokens", "osl_tokens"]
    ].assign(note="kept")
    windows.loc[3, "isl_tokens"] = np.nan
    windows.to_parquet(tmp_path / "windows.parquet")
    out = tmp_path / "out.parquet"
    command = ("latency", "predict", "--model", tmp_path / "m", "--out", out)
    assert run(*command, "--serving", tmp_path / "windows.parquet").returncode == 0
    predicted = pd.read_parquet(out)
    assert len(predicted) == 50
    assert (predicted.note == "kept").all()
    columns = ["ttft_p50_seconds", "ttft_p95_seconds", "tpot_p50_seconds", "tpot_p95_seconds"]
    assert predicted[columns].notna().all(axis=None)
    ask = ("latency", "capacity", "--model", tmp_path / "m", "--variant", "h100", "--isl", 1000)
    targets = ("--osl", 100, "--ttft-seconds", 1.0, "--tpot-seconds", 0.08)
    assert run(*ask, *targets, "--json", tmp_path / "c.json").returncode == 0
    assert json.loads((tmp_path / "c.json").read_text())["replica_capacity_rps"] > 0.5
    assert run(*ask[:5], "nope", *ask[6:], *targets).returncode == 2


def test_backtest_is_complete_ordered_and_blind_to_the_future(world: Path, tmp_path: Path) -> None:
    load = pd.read_parquet(world / "telemetry" / "load.parquet")
    cutoffs = pd.DataFrame({"service": SERVICE, "cutoff": load.ts.iloc[[2000, 2400, 2800]]})
    cutoffs.to_parquet(tmp_path / "cutoffs.parquet")
    truncated = tmp_path / "load.parquet"
    load.iloc[:2401].to_parquet(truncated)
    cutoffs.iloc[:2].to_parquet(tmp_path / "early.parquet")

    def ask(load_file: Path, cutoff_file: Path, out: Path) -> pd.DataFrame:
        command = ("backtest", "--load", load_file, "--cutoffs", cutoff_file, "--horizon-steps", 5)
        result = run(*command, "--target", "requests", "--out", out)
        assert result.returncode == 0, result.stderr
        return pd.read_parquet(out)

    every = ask(world / "telemetry" / "load.parquet", tmp_path / "cutoffs.parquet", tmp_path / "a")
    early = ask(truncated, tmp_path / "early.parquet", tmp_path / "b")
    assert len(every) == 3 * 5 * 6
    assert every.yhat.notna().all()
    known = every[every.cutoff.isin(early.cutoff)].reset_index(drop=True)
    pd.testing.assert_frame_equal(known, early.reset_index(drop=True))
    wide = every.pivot_table(index=["cutoff", "h"], columns="quantile", values="yhat")
    assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["nonsense"],
        ["backtest", "--horizon-steps", "0"],
        ["backtest", "--load", "load.parquet"],
        ["train", "--telemetry", "t", "--models", "m", "--engine", "cloud"],
        ["replay", "missing.jsonl", "--models", "missing"],
        ["decide", "--models", "missing", "--policies", "missing.yaml"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_two(arguments: list[str], tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize(
    "command", ["train", "backtest", "decide", "replay", "latency", "whatif", "tune", "demo"]
)
def test_help_shows_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"foreserve {command}" in result.stdout


def test_the_version_is_told() -> None:
    result = cold("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"foreserve \d+\.\d+\.\d+\n", result.stdout)
