"""A latency fit that contradicts what serves beyond belief does not replace it."""

import numpy as np

from models.artifact import Generation
from models.latency import LatencyModel
from models.latency_parameters import default_columns
from models.step_time import Coefficients
from training.train import plausible_latency

KEYS = [("prod/chat", "h100"), ("prod/code", "h100")]


def model(*seconds_per_step: float) -> LatencyModel:
    """One engine a key, all step times in proportion to the base."""
    columns = np.tile(default_columns()[:, None], (1, len(seconds_per_step)))
    c = Coefficients.from_columns(columns)
    times = np.array(seconds_per_step) / c.base_seconds
    for name in ("per_sequence", "per_context_token", "per_prompt_token", "base"):
        getattr(c, f"{name}_seconds")[:] *= times
    return LatencyModel(KEYS[: len(seconds_per_step)], c.columns(), {})


def serving(old: LatencyModel) -> Generation:
    files = {f"latency/{name}": data for name, data in old.to_files().items()}
    return Generation("g-1", files, {})


def test_nothing_served_before() -> None:
    new = model(0.02)
    kept, verdict = plausible_latency(new, False, None)
    assert kept is new
    assert verdict.promoted


def test_a_leap_of_one_pair_keeps_that_pair_alone_and_is_reported() -> None:
    kept, verdict = plausible_latency(model(0.002, 0.03), False, serving(model(0.02, 0.02)))
    assert kept.coefficients(KEYS).base_seconds.tolist() == [0.02, 0.03]
    assert verdict.promoted
    assert verdict.why.startswith("prod/chat/h100: a replica would carry")


def test_where_every_pair_leaps_what_served_stays() -> None:
    kept, verdict = plausible_latency(model(0.2), False, serving(model(0.02)))
    assert kept.coefficients(KEYS[:1]).base_seconds.tolist() == [0.02]
    assert not verdict.promoted


def test_an_incumbent_that_cannot_be_read_is_said() -> None:
    broken = Generation("g-1", {"latency/latency.json": b'{"format": 0}'}, {})
    kept, verdict = plausible_latency(model(0.02), False, broken)
    assert kept.knows(*KEYS[0])
    assert "the incumbent cannot be read: latency model: 'latency.json' has format 0" in verdict.why
