"""Past load is read beside the loop, taken over between turns, and waited for, but not for ever."""

import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from builders import NOW, SERVICE, policies, policy

from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.clock import Clock
from autoscaler.loop import Controller
from autoscaler.operate.process import HISTORY_AGAIN_SECONDS, HISTORY_PATIENCE_SECONDS, Backfill
from models.frames import LoadSeries
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel

OTHER = "prod/other"


@dataclass
class Archive:
    """Recorded load; reading waits for `let`."""

    let: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    error: Exception | None = None
    seconds: float = 0.0

    def read(self, asked: Policies, now_seconds: float) -> LoadSeries | None:
        self.asked.append(tuple(sorted(asked.services)))
        assert self.let.wait(10.0)
        if self.error is not None:
            raise self.error
        values = np.full((len(asked.services), 60, 3), 60.0)
        return LoadSeries(tuple(sorted(asked.services)), now_seconds - 3600.0, 60.0, values)

    def clock(self) -> Clock:
        return Clock(lambda: NOW + self.seconds, lambda: self.seconds)


def controller(declared: Policies) -> Controller:
    latency = LatencyModel((), np.zeros((0, 0)), {})
    return Controller(declared, ServingModels("none", None, latency, LeadTimeModel({})))


def joined(backfill: Backfill) -> None:
    assert backfill._thread is not None
    backfill._thread.join(10.0)


def recorded(own: Controller) -> int:
    return int(np.isfinite(own._forecaster.history.requests).sum())


def test_nothing_is_written_before_history_has_been_taken_over() -> None:
    archive, declared = Archive(), policies(policy())
    own, backfill = controller(declared), Backfill(archive.read, archive.clock())
    assert not backfill.may_lower()
    backfill.follow(own, declared, NOW)
    assert not backfill.may_lower()
    archive.let.set()
    joined(backfill)
    assert not backfill.may_lower()  # read, and not yet known to the controller
    assert recorded(own) == 0
    backfill.follow(own, declared, NOW)
    assert backfill.may_lower()
    assert recorded(own) == 60
    archive.seconds = 10 * HISTORY_AGAIN_SECONDS
    backfill.follow(own, declared, NOW)
    assert len(archive.asked) == 1


def test_what_fails_is_tried_again_and_not_waited_for_for_ever() -> None:
    archive, declared = Archive(error=OSError("no route to host")), policies(policy())
    own, backfill = controller(declared), Backfill(archive.read, archive.clock())
    archive.let.set()
    backfill.follow(own, declared, NOW)
    joined(backfill)
    archive.seconds = HISTORY_AGAIN_SECONDS - 1.0
    backfill.follow(own, declared, NOW)
    assert len(archive.asked) == 1
    assert not backfill.may_lower()
    assert backfill.may_grow()  # a fleet that is short need not wait for what cannot be read
    archive.seconds = HISTORY_PATIENCE_SECONDS + 1.0
    assert backfill.may_lower()
    backfill.follow(own, declared, NOW)
    assert len(archive.asked) == 2
    joined(backfill)


def test_a_service_that_comes_later_is_read_later() -> None:
    archive, declared = Archive(), policies(policy())
    own, backfill = controller(declared), Backfill(archive.read, archive.clock())
    archive.let.set()
    backfill.follow(own, declared, NOW)
    joined(backfill)
    more = policies(policy(), replace(policy(), service=OTHER))
    backfill.follow(own, more, NOW)
    assert backfill.may_lower()  # the others need not wait for the new one
    archive.seconds = HISTORY_AGAIN_SECONDS
    backfill.follow(own, more, NOW)
    assert archive.asked == [(SERVICE,), tuple(sorted((SERVICE, OTHER)))]
    joined(backfill)


@pytest.mark.parametrize("in_flight", [False, True])
def test_a_new_model_has_its_history_read_again(*, in_flight: bool) -> None:
    archive, declared = Archive(), policies(policy())
    own, backfill = controller(declared), Backfill(archive.read, archive.clock())
    backfill.follow(own, declared, NOW)
    if in_flight:  # the old model's history is still being read
        backfill.again()
    archive.let.set()
    joined(backfill)
    backfill.follow(own, declared, NOW)
    if not in_flight:
        backfill.again()
        backfill.follow(own, declared, NOW)
    joined(backfill)
    assert len(archive.asked) == 2
    assert backfill.may_lower()


def test_without_policies_or_history_nobody_waits() -> None:
    archive, none = Archive(), Policies({}, ())
    backfill = Backfill(archive.read, archive.clock())
    backfill.follow(controller(none), none, NOW)
    assert backfill.may_lower()
    assert archive.asked == []
    assert Backfill(None, archive.clock()).may_lower()


def test_a_service_that_was_away_has_its_history_read_again() -> None:
    archive, declared = Archive(), policies(policy())
    own, backfill = controller(declared), Backfill(archive.read, archive.clock())
    archive.let.set()
    backfill.follow(own, declared, NOW)
    joined(backfill)
    backfill.follow(own, declared, NOW)
    assert recorded(own) == 60
    for each in (Policies({}, ()), declared):  # the policy is deleted and applied again
        own.declare(each)
        archive.seconds += HISTORY_AGAIN_SECONDS
        backfill.follow(own, each, NOW)
    assert recorded(own) == 0
    joined(backfill)
    backfill.follow(own, declared, NOW)
    assert archive.asked == [(SERVICE,), (SERVICE,)]
    assert recorded(own) == 60
