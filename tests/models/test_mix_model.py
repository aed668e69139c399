import numpy as np
import pytest
from traffic_world import (
    CHAT,
    DAY,
    DOCUMENTS,
    NIGHT_STEPS,
    START,
    STEP,
    chat_and_documents,
    chat_only,
    documents_share,
    load_of,
    series_of,
)

from models.frames import LoadSeries
from models.mix_bins import BinClock, binned, mean_lengths, trailing
from models.mix_model import MixForecast, MixModel
from models.quantiles import FloatArray

MIXED, PLAIN = "a/mixed", "b/plain"
LEADS = (np.arange(8) + 0.5) * STEP
DAYS = 8


@pytest.fixture(scope="module")
def series() -> LoadSeries:
    return series_of(**{MIXED: chat_and_documents(DAYS), PLAIN: chat_only(DAYS)})


@pytest.fixture(scope="module")
def model(series: LoadSeries) -> MixModel:
    return MixModel.fit(series)


def ask(
    model: MixModel, values: FloatArray, steps: int, names: tuple[str, ...] = (MIXED, PLAIN)
) -> MixForecast:
    """Forecast from the first `steps` of `values` (S, T, 3)."""
    end = START + steps * STEP
    sums, first = binned(values[:, :steps], START, model.clock)
    recent = trailing(sums, first, model.clock.newest(end), model.clock.kept)
    return model.forecast(names, recent, end, LEADS)


def test_chat_by_day_and_documents_by_night_are_two_classes(model: MixModel) -> None:
    found = model.lengths(MIXED)
    assert found[np.argsort(found[:, 0])] == pytest.approx(np.array([CHAT, DOCUMENTS]), rel=0.1)
    assert len(model.lengths(PLAIN)) == 1
    assert len(model.lengths("never/seen")) == 0
    classes = model.scores[MIXED]["classes"]
    assert sum(c["share_ratio"] for c in classes) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("before_midnight", "documents_from_lead"),
    [(2, 3), (6, 7)],
    ids=["half an hour before the night", "an hour and a half before"],
)
def test_the_mix_follows_what_comes_not_what_was(
    model: MixModel, before_midnight: int, documents_from_lead: int
) -> None:
    values = np.stack([chat_and_documents(DAYS + 2, 7), chat_only(DAYS + 2, 8)])
    got = ask(model, values, (DAYS + 1) * DAY - before_midnight)
    day, night = slice(0, documents_from_lead - 1), slice(documents_from_lead - 1, None)
    assert got.isl_tokens[0, day] == pytest.approx(CHAT[0], rel=0.25)
    assert got.isl_tokens[0, night] == pytest.approx(DOCUMENTS[0], rel=0.1)
    assert got.osl_tokens[0, day] == pytest.approx(CHAT[1], rel=0.1)
    assert got.osl_tokens[0, night] == pytest.approx(DOCUMENTS[1], rel=0.1)
    assert got.drifts == (None, None)


def test_input_and_output_lengths_agree_on_one_mix(model: MixModel) -> None:
    values = np.stack([chat_and_documents(DAYS + 2, 7), chat_only(DAYS + 2, 8)])
    for steps in range(DAYS * DAY + 3, (DAYS + 2) * DAY, 17):
        got = ask(model, values, steps)
        share_by_isl = (got.isl_tokens[0] - CHAT[0]) / (DOCUMENTS - CHAT)[0]
        share_by_osl = (got.osl_tokens[0] - CHAT[1]) / (DOCUMENTS - CHAT)[1]
        assert share_by_isl == pytest.approx(share_by_osl, abs=0.1)
        low, high = model.bounds([MIXED])[0, :, 0], model.bounds([MIXED])[0, :, 1]
        lengths = np.stack([got.isl_tokens[0], got.osl_tokens[0]], axis=1)
        assert (lengths >= low).all()
        assert (lengths <= high).all()


def test_a_service_of_one_class_keeps_its_recent_mix(model: MixModel) -> None:
    values = np.stack([chat_and_documents(DAYS + 1, 7), chat_only(DAYS + 1, 8)])
    got = ask(model, values, (DAYS + 1) * DAY)
    assert np.isnan(got.shares[1]).all()
    assert np.ptp(got.isl_tokens[1]) == 0.0
    last_hour = values[1, -4:].sum(axis=0)
    assert got.isl_tokens[1, 0] == pytest.approx(last_hour[1] / last_hour[0], rel=0.02)


def test_a_share_outside_of_what_its_history_allows_is_told_and_not_believed(
    model: MixModel,
) -> None:
    """Documents at noon: the lengths are those of the classes, the share is not."""
    steps, noon = (DAYS + 1) * DAY, DAYS * DAY + 48
    share = documents_share(steps)
    share[noon - 8 : noon] = 0.6
    requests = np.full(steps, 300.0)
    values = np.stack([load_of(requests, share, 9), chat_only(DAYS + 1, 8)])
    assert ask(model, values, noon - 5).drifts[0] is None  # three quarters of an hour are no drift
    got = ask(model, values, noon)
    drift = got.drifts[0]
    assert drift is not None
    assert drift.what == "share"
    assert drift.now == pytest.approx(0.6, abs=0.05) or drift.now == pytest.approx(0.4, abs=0.05)
    recent = 0.4 * CHAT[0] + 0.6 * DOCUMENTS[0]
    assert got.isl_tokens[0] == pytest.approx(recent, rel=0.1)  # not the evening's chat
    words = drift.in_words(model.lengths(MIXED)[drift.number])
    assert "mix drifted" in words
    assert "until now" in words
    assert ask(model, values, noon + 4).drifts[0] is None  # over once an hour is as it should be


def test_a_class_whose_requests_got_longer_is_told(model: MixModel) -> None:
    steps = (DAYS + 1) * DAY
    values = np.stack([chat_and_documents(DAYS + 1, 7), chat_only(DAYS + 1, 8)])
    values[:, steps - 8 :, 2] *= 4.0  # answers of 800 tokens, where no class has more than 200
    got = ask(model, values, steps)
    for drift in got.drifts:
        assert drift is not None
        assert drift.what == "length"
        assert "off those of" in drift.in_words(CHAT)
    assert got.osl_tokens[0, -1] == pytest.approx(4 * CHAT[1], rel=0.1)


def test_no_drift_on_days_like_all_others(model: MixModel) -> None:
    values = np.stack([chat_and_documents(DAYS + 3, 17), chat_only(DAYS + 3, 18)])
    told = [ask(model, values, s).drifts for s in range(DAYS * DAY, (DAYS + 3) * DAY, 5)]
    assert all(d is None for each in told for d in each)


def test_a_service_never_seen_and_an_empty_past_are_served_by_what_is_known(
    model: MixModel,
) -> None:
    values = np.stack([chat_and_documents(1, 7), chat_only(1, 8)])
    got = ask(model, values, DAY, names=("new/one", PLAIN))
    assert np.isfinite(got.isl_tokens).all()
    assert got.drifts[0] is None
    nothing = ask(model, np.full_like(values, np.nan), DAY)
    assert np.isnan(nothing.isl_tokens).all()
    assert nothing.drifts == (None, None)


def test_a_service_young_at_the_fit_still_has_numbers() -> None:
    young = np.full((DAY, 3), np.nan)
    young[-2:] = [10.0, 5000.0, 1000.0]
    model = MixModel.fit(series_of(young=young, dead=np.full((DAY, 3), np.nan)))
    got = ask(model, np.stack([young, young]), DAY, names=("young", "dead"))
    assert got.isl_tokens[0] == pytest.approx(500.0)
    assert np.isnan(got.isl_tokens[1]).all()  # nothing was ever told of it


def test_a_forecast_is_the_same_bits_whatever_services_are_beside(
    model: MixModel, series: LoadSeries
) -> None:
    both = ask(model, series.values, DAYS * DAY - 3)
    alone = ask(model, series.values[:1], DAYS * DAY - 3, names=(MIXED,))
    assert (both.isl_tokens[0] == alone.isl_tokens[0]).all()
    assert (both.osl_tokens[0] == alone.osl_tokens[0]).all()


def test_files_make_the_same_model_and_damage_is_named(model: MixModel, series: LoadSeries) -> None:
    files = model.to_files()
    again = MixModel.from_files(files)
    before, after = (ask(m, series.values, DAYS * DAY - 3) for m in (model, again))
    assert (before.isl_tokens == after.isl_tokens).all()
    assert again.scores == model.scores
    assert again.to_files()["mix.json"] == files["mix.json"]
    for name in files:
        with pytest.raises(ValueError, match=name):
            MixModel.from_files({k: v for k, v in files.items() if k != name})
        with pytest.raises(ValueError, match=name):
            MixModel.from_files(files | {name: files[name][:40]})


def test_bins_add_up_whole_steps_and_skip_what_is_partly_unknown() -> None:
    values = np.ones((1, 10, 3)) * [2.0, 20.0, 4.0]
    values[0, 3, 1] = np.nan
    clock = BinClock(300.0)
    sums, first = binned(values, START + 300.0, clock)  # begins with the second step of a bin
    assert clock.seconds == 900.0
    assert first == START / 900.0
    assert sums[0, :, 0].tolist() == [4.0, 4.0, 6.0, 4.0]
    assert mean_lengths(sums)[0] == pytest.approx(np.tile([10.0, 2.0], (4, 1)))
    assert BinClock(600.0).seconds == 600.0  # whole steps; never longer than need be
    assert BinClock(3600.0).seconds == 3600.0


@pytest.mark.parametrize("steps", [0, NIGHT_STEPS])
def test_trailing_bins_beyond_what_is_known_are_empty(steps: int) -> None:
    sums = np.ones((1, steps, 3))
    found = trailing(sums, 5, 5 + steps + 1, 4)
    assert found.shape == (1, 4, 3)
    assert found[0, :, 0].tolist() == ([0.0] * 4 if steps == 0 else [1.0, 1.0, 0.0, 0.0])
