"""The load frame from arrays: prefill and decode count a request once."""

import numpy as np
import pytest

from models.contract import Labels
from training.ingest.assemble import Grid, load_frame
from training.ingest.plan import Request

KEYS = [("prod/pd", "prefill"), ("prod/pd", "decode")]
COLUMNS = {
    "arrival_rate_rps": np.array([[2.0, 2.0], [2.0, 1.5]]),
    "completion_rate_rps": np.array([[2.0, 2.0], [2.0, 1.5]]),
    "isl_tokens": np.array([[800.0, 800.0], [800.0, 800.0]]),
    "osl_tokens": np.array([[1.0, 1.0], [100.0, 100.0]]),
}
ROLES = {KEYS[0]: "Prefill", KEYS[1]: "Decode"}


def test_a_request_in_two_phases_is_one_arrival_with_the_lengths_of_each() -> None:
    grid = Grid(Request("here", 0.0, 120.0, 60.0, Labels()))
    frame = load_frame(KEYS, COLUMNS, {}, grid, ROLES)
    assert frame.requests.to_list() == pytest.approx([120.0, 120.0])
    assert frame.input_tokens.to_list() == pytest.approx([96_000.0, 96_000.0])
    assert frame.output_tokens.to_list() == pytest.approx([12_000.0, 12_000.0])  # not prefill's 1
    alike = load_frame(KEYS, COLUMNS, {}, grid, {})
    assert alike.requests.to_list() == pytest.approx([240.0, 210.0])  # two variants, one phase
