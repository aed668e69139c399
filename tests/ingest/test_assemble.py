"""The load frame from arrays: prefill and decode count a request once."""

import numpy as np
import pytest

from models.contract import Labels
from training.ingest.assemble import AtGateway, Doubts, Grid, arrivals_rps, load_frame
from training.ingest.plan import Request

KEYS = [("prod/pd", "prefill"), ("prod/pd", "decode")]
COLUMNS = {
    "arrival_rate_rps": np.array([[2.0, 2.0], [2.0, 1.5]]),
    "completion_rate_rps": np.array([[2.0, 2.0], [2.0, 1.5]]),
    "isl_tokens": np.array([[800.0, 800.0], [800.0, 800.0]]),
    "osl_tokens": np.array([[1.0, 1.0], [100.0, 100.0]]),
}
NO_GATEWAY = AtGateway({}, {})
ROLES = {KEYS[0]: "Prefill", KEYS[1]: "Decode"}


def test_a_request_in_two_phases_is_one_arrival_with_the_lengths_of_each() -> None:
    grid = Grid(Request("here", 0.0, 120.0, 60.0, Labels()))
    frame = load_frame(KEYS, COLUMNS, NO_GATEWAY, grid, ROLES)
    assert frame.requests.to_list() == pytest.approx([120.0, 120.0])
    assert frame.input_tokens.to_list() == pytest.approx([96_000.0, 96_000.0])
    assert frame.output_tokens.to_list() == pytest.approx([12_000.0, 12_000.0])  # not prefill's 1
    alike = load_frame(KEYS, COLUMNS, NO_GATEWAY, grid, {})
    assert alike.requests.to_list() == pytest.approx([240.0, 210.0])  # two variants, one phase


def test_what_the_gateway_held_arrived_when_it_came_and_counts_once() -> None:
    """A service at zero: 120 requests wait, the start ends, the queue empties in a minute."""
    nan = np.nan
    rebuilt = np.array([nan, nan, nan, 3.0, 2.0, 0.5])  # 180 a minute: 60 new ones, and the queue's
    held = np.array([0.0, 1.0, 1.0, -2.0, 0.0, nan])  # requests per second that the queue grew by
    got = AtGateway({}, {"prod/pd": held}).offered("prod/pd", rebuilt)
    assert np.isnan(got[0])  # nothing waits and nothing runs: that says nothing
    assert got[1:].tolist() == [1.0, 1.0, 1.0, 2.0, 0.5]
    counted = {"prod/pd": np.array([0.9, nan, nan, nan, nan, nan])}
    with_counter = AtGateway(counted, {"prod/pd": held}).offered("prod/pd", rebuilt)
    assert with_counter[0] == 0.9  # a counter is before any queue: nothing is added to it
    assert with_counter[1:].tolist() == got[1:].tolist()
    assert AtGateway({}, {}).offered("prod/pd", rebuilt).tolist()[3:] == [3.0, 2.0, 0.5]


def test_requests_that_were_refused_are_demand_in_the_load() -> None:
    columns = {
        "completion_rate_rps": np.array([[2.0, 2.0]]),
        "rejection_rate_rps": np.array([[0.0, 5.0]]),
        "running_change": np.zeros((1, 2)),
        "waiting_change": np.zeros((1, 2)),
    }
    assert arrivals_rps(columns, 75.0, Doubts()).tolist() == [[2.0, 7.0]]
