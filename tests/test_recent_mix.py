"""The mix of requests online: quarter hours gather, forecasts of the mix reach sizing and the log."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import NOW, SERVICE, forecasts, observation, outlook, policies, policy, seen
from traffic_world import CHAT, DAY, DOCUMENTS, STEP, chat_and_documents, chat_only, load_of

from autoscaler.core.outcome import Decisions, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Observation, ServiceObservation
from autoscaler.edge.decision_log import DecisionLog, Header, LogError, read_log
from autoscaler.outlook import History, outlooks_of
from autoscaler.recent_mix import RecentMix
from models.frames import LoadSeries
from models.load_model import LoadModel
from models.mix_model import MixModel
from models.quantiles import LoadForecast

MIXED, PLAIN = "a/mixed", "b/plain"
START = NOW  # a midnight
LEADS = (np.arange(8) + 0.5) * STEP


def made(*loads: np.ndarray) -> LoadSeries:
    return LoadSeries((MIXED, PLAIN)[: len(loads)], START, STEP, np.stack(loads))


@pytest.fixture(scope="module")
def model() -> MixModel:
    return MixModel.fit(made(chat_and_documents(8), chat_only(8)))


def interval(end_seconds: float, load: np.ndarray, seconds: float) -> Observation:
    requests, tokens_in, tokens_out = load
    service = ServiceObservation(
        requests / STEP, tokens_in / requests, tokens_out / requests, {"h100": seen(1)}
    )
    return Observation(end_seconds, seconds, {MIXED: service}, {})


def test_what_was_observed_and_what_was_recorded_forecast_the_same(model: MixModel) -> None:
    load = chat_and_documents(2, 5)[: DAY + 60]
    seeded = History([MIXED], STEP, 2 * DAY)
    seeded.seed(made(load))
    watched = History([MIXED], STEP, 2 * DAY)
    for step, row in enumerate(load):
        for quarter in (1, 2):  # half of a step each
            watched.observe(interval(START + (step + quarter / 2) * STEP, row, STEP / 2))
    assert watched.end_seconds == seeded.end_seconds
    got = [h.mix.forecast(model, h.end_seconds, LEADS) for h in (seeded, watched)]
    assert got[0].isl_tokens == pytest.approx(got[1].isl_tokens, rel=1e-5)
    assert got[0].osl_tokens == pytest.approx(got[1].osl_tokens, rel=1e-5)


def test_after_an_observation_the_record_fills_only_what_was_not_seen(model: MixModel) -> None:
    load = chat_and_documents(2, 5)[:-4]
    history = History([MIXED], STEP, 2 * DAY)
    twice = load[-1] * [1.0, 1.0, 2.0]
    history.observe(interval(START + len(load) * STEP, twice, STEP))
    history.seed(made(load))
    got = history.mix.forecast(model, history.end_seconds, LEADS)
    assert got.osl_tokens[0, 0] > 1.1 * CHAT[1]  # what was seen here stays
    assert got.isl_tokens[0, 4] == pytest.approx(DOCUMENTS[0], rel=0.15)  # the night of the record


def test_what_is_recorded_after_now_is_dropped_and_others_begin_empty(model: MixModel) -> None:
    mix = RecentMix([MIXED], STEP)
    mix.seed(made(chat_and_documents(3, 5)))
    then = mix.forecast(
        model, START + 2 * DAY * STEP, LEADS
    )  # time is a day before the record's end
    assert np.isfinite(then.isl_tokens).all()
    back = mix.forecast(model, START + 3 * DAY * STEP, LEADS)
    assert back.isl_tokens[0, 0] != pytest.approx(0.0)
    other = mix.covering([MIXED, "new/one"])
    got = other.forecast(model, START + 3 * DAY * STEP, LEADS)
    assert got.isl_tokens[0] == pytest.approx(back.isl_tokens[0])
    assert np.isnan(got.isl_tokens[1]).all()


def load_forecast(names: tuple[str, ...], end_seconds: float) -> LoadForecast:
    values = np.tile(np.arange(1.0, 7.0) * 100, (len(names), 8, 1))
    return LoadForecast(names, end_seconds, STEP, np.arange(1, 9), values, ("level",) * len(names))


def test_outlooks_carry_the_mix_of_classes_and_leave_one_class_as_it_was(model: MixModel) -> None:
    loads = chat_and_documents(2, 5)[:-3], chat_only(2, 6)[:-3]
    history = History([MIXED, PLAIN], STEP, 2 * DAY)
    history.seed(made(*loads))
    mix = history.mix.forecast(model, history.end_seconds, LEADS)
    forecast = load_forecast((MIXED, PLAIN), history.end_seconds)
    score = LoadModel.fit(made(chat_and_documents(1)), leads_steps=range(1, 9))
    got = outlooks_of(forecast, history, score, mix)
    ahead = got[MIXED].ahead_tokens
    assert ahead is not None
    assert ahead[:3, 0] == pytest.approx(CHAT[0], rel=0.25)
    assert ahead[3:, 0] == pytest.approx(DOCUMENTS[0], rel=0.1)
    assert got[PLAIN].ahead_tokens is None
    without = outlooks_of(forecast, history, score)
    assert without[PLAIN].isl_tokens == got[PLAIN].isl_tokens
    assert without[MIXED].ahead_tokens is None


def test_a_drift_takes_the_forecast_mix_away(model: MixModel) -> None:
    steps = DAY + 48
    share = np.zeros(steps)
    share[-6:] = 0.6
    history = History([MIXED], STEP, 2 * DAY)
    history.seed(made(load_of(np.full(steps, 300.0), share, 4)))
    mix = history.mix.forecast(model, history.end_seconds, LEADS)
    assert mix.drifts[0] is not None
    score = LoadModel.fit(made(chat_and_documents(1)), leads_steps=range(1, 9))
    got = outlooks_of(load_forecast((MIXED,), history.end_seconds), history, score, mix)
    assert got[MIXED].ahead_tokens is None


def test_longer_prompts_ahead_need_more_replicas_before_they_come() -> None:
    def wanted(isl_tokens: float, fleet: int = 2) -> int:
        leads = outlook(8.0).leads_seconds.size
        ahead = np.tile([isl_tokens, 100.0], (leads, 1))
        known = forecasts({SERVICE: outlook(8.0, ahead_tokens=ahead)})
        seen_now = observation(rate=8.0, h100=seen(fleet))
        _, decisions = tick(policies(policy()), known, State(), seen_now)
        return decisions.services[SERVICE].variants["h100"]

    as_now, known = wanted(1000.0), forecasts({SERVICE: outlook(8.0)})
    _, plain = tick(policies(policy()), known, State(), observation(rate=8.0, h100=seen(2)))
    assert as_now == plain.services[SERVICE].variants["h100"]
    assert wanted(4000.0) >= 2 * as_now
    assert wanted(200.0, as_now) == as_now  # what runs is still needed for the mix of now


def test_the_load_measured_now_is_sized_with_the_mix_of_now() -> None:
    leads = outlook(8.0).leads_seconds.size
    ahead = np.tile([4000.0, 100.0], (leads, 1))
    found = []
    for told in (None, ahead):
        known = forecasts({SERVICE: outlook(8.0, ahead_tokens=told)})
        world, obs = policies(policy()), observation(rate=8.0, h100=seen(2))
        found.append(tick(world, known, State(), obs)[1].services[SERVICE])
    assert found[0].needed_replicas == found[1].needed_replicas
    assert found[1].required_replicas > found[0].required_replicas


def test_a_drift_is_said_in_the_decision() -> None:
    said = "mix drifted: requests of about 8000 tokens in, 100 out are 60 % of the traffic"
    known = forecasts({SERVICE: outlook(8.0, mix_drift=said)})
    _, decisions = tick(policies(policy()), known, State(), observation(rate=8.0, h100=seen(2)))
    assert decisions.services[SERVICE].detail.endswith(f"; {said}")


def test_the_log_keeps_the_mix_and_reads_logs_from_before_it(tmp_path: Path) -> None:
    ahead = np.random.default_rng(1).uniform(100, 9000, (outlook(1.0).leads_seconds.size, 2))
    rich = outlook(8.0, ahead_tokens=ahead, mix_drift="mix drifted: so")
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        log = DecisionLog(file, Header("g-1", ()))
        log.append(observation(h100=seen(1)), {SERVICE: rich}, Decisions(NOW, {}, "separable"), {})
        plain = {SERVICE: outlook(8.0)}
        log.append(observation(NOW + 60, h100=seen(1)), plain, Decisions(NOW, {}, "separable"), {})
    first, second = (e.outlooks for e in read_log(path)[1])
    assert first is not None
    assert second is not None
    assert first[SERVICE].ahead_tokens == pytest.approx(ahead, abs=0.0)
    assert first[SERVICE].mix_drift == "mix drifted: so"
    assert second[SERVICE].ahead_tokens is None
    assert "ahead_tokens" not in path.read_text().splitlines()[2]
    broken = json.loads(path.read_text().splitlines()[1])
    broken["outlooks"][SERVICE]["ahead_tokens"] = [[1.0, 2.0]]
    path.write_text(path.read_text().splitlines()[0] + "\n" + json.dumps(broken) + "\n")
    with pytest.raises(LogError, match="ahead_tokens"):
        list(read_log(path)[1])
