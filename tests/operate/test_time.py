"""The operator's time follows the telemetry server's, whatever this machine's clock says."""

import math
from dataclasses import dataclass

import pytest

from autoscaler.edge.clock import Clock, SteadyTime

TRUE = 1_795_759_200.0
FIVE_MINUTES = 300.0


@dataclass
class Machine:
    """A node whose wall clock is `wrong` seconds off, beside a server whose is right."""

    wrong: float = 0.0
    passed: float = 0.0
    answers: bool = True

    def clock(self) -> Clock:
        return Clock(lambda: TRUE + self.passed + self.wrong, lambda: 77.0 + self.passed)

    def server(self) -> float:
        """Return the Date of an HTTP answer: whole seconds."""
        return math.floor(TRUE + self.passed) if self.answers else math.nan


@pytest.mark.parametrize("wrong", [FIVE_MINUTES, -FIVE_MINUTES, 86_400.0])
def test_the_servers_clock_counts_from_the_first_answer_on(wrong: float) -> None:
    machine = Machine(wrong)
    time = SteadyTime(machine.clock(), machine.server)
    assert time.now() == pytest.approx(TRUE + wrong)
    assert time.compare()
    assert abs(time.now() - TRUE) <= 1.0
    assert not time.compare()  # within a minute nobody compares again
    machine.passed = 3600.0
    assert not time.compare()
    assert abs(time.now() - TRUE - 3600.0) <= 1.0


def test_a_small_difference_is_left_alone() -> None:
    machine = Machine(1.0)
    time = SteadyTime(machine.clock(), machine.server)
    assert not time.compare()
    assert time.now() == TRUE + 1.0


def test_a_clock_that_is_set_while_we_run_changes_nothing() -> None:
    machine = Machine()
    time = SteadyTime(machine.clock(), None)
    machine.passed, machine.wrong = 10.0, -FIVE_MINUTES
    assert time.now() == TRUE + 10.0
    assert not time.compare()


def test_a_server_that_never_answered_is_asked_again_at_once() -> None:
    machine = Machine(FIVE_MINUTES, answers=False)
    time = SteadyTime(machine.clock(), machine.server)
    assert not time.compare()
    machine.passed, machine.answers = 1.0, True
    assert time.compare()


def test_time_never_goes_back_behind_a_step_that_was_taken() -> None:
    machine = Machine(FIVE_MINUTES, answers=False)
    time = SteadyTime(machine.clock(), machine.server)
    taken = time.now()
    machine.answers = True
    assert time.compare()
    after = time.now(taken)
    assert taken < after < taken + 0.01
    assert time.now(after) > after
    machine.passed = FIVE_MINUTES + 10.0
    assert time.now(after) == pytest.approx(TRUE + FIVE_MINUTES + 10.0, abs=1.0)
