import numpy as np
from latency_world import engine

from models.latency import LatencyModel
from models.latency_leap import judged

KEY = ("prod/chat", "h100")


def columns(times: float) -> np.ndarray:
    """An engine that carries `times` as much as the usual one."""
    c = engine(
        base_seconds=0.03 / times,
        per_sequence_seconds=2.5e-4 / times,
        per_context_token_seconds=1e-7 / times,
        per_prompt_token_seconds=1e-4 / times,
    )
    return c.columns()[:, 0]


def model(times: float, scores: dict) -> LatencyModel:
    return LatencyModel([KEY], columns(times)[:, None], {"prod/chat/h100": scores})


def test_a_plausible_change_is_taken() -> None:
    assert judged(columns(2.9), columns(1.0), {}) == (True, None)
    assert judged(columns(0.4), columns(1.0), {}) == (True, None)


def test_a_leap_is_refused_and_reported() -> None:
    after = model(50.0, {"windows": 9}).after(model(1.0, {}))
    assert np.array_equal(after.coefficients([KEY]).columns()[:, 0], columns(1.0))
    leap = after.scores["prod/chat/h100"]["leap"]
    assert leap["note"].startswith("a replica would carry 50 times what it did; allowed: 3 times")
    assert leap | {"note": ""} == {"times": 50.0, "refused": 1, "note": ""}
    assert after.scores["prod/chat/h100"]["windows"] == 9
    assert LatencyModel.from_files(after.to_files()).scores == after.scores


def test_a_leap_that_persists_is_taken_at_the_third_training() -> None:
    serving = model(1.0, {})
    for refused in (1, 2):
        serving = model(5.0, {}).after(serving)
        assert serving.scores["prod/chat/h100"]["leap"]["refused"] == refused
    serving = model(5.0, {}).after(serving)
    assert "leap" not in serving.scores["prod/chat/h100"]
    assert np.array_equal(serving.coefficients([KEY]).columns()[:, 0], columns(5.0))


def test_leaps_that_contradict_each_other_count_from_the_beginning() -> None:
    serving = model(1.0, {})
    for times in (5.0, 50.0, 5.0, 0.1):
        serving = model(times, {}).after(serving)
        assert serving.scores["prod/chat/h100"]["leap"]["refused"] == 1


def test_pairs_that_were_not_known_are_taken() -> None:
    other = LatencyModel([("prod/other", "h100")], columns(1.0)[:, None], {})
    after = model(50.0, {"windows": 9}).after(other)
    assert np.array_equal(after.coefficients([KEY]).columns()[:, 0], columns(50.0))
