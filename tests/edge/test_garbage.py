"""The collector of a deciding process."""

import gc
from collections.abc import Iterator

import pytest

from autoscaler.edge.garbage import NEW_VALUES, collect_seldom


@pytest.fixture
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.mark.usefixtures("as_before")
def test_what_is_loaded_is_left_alone_and_cycles_are_still_found() -> None:
    loaded = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    collect_seldom()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == NEW_VALUES
    assert gc.get_freeze_count() > len(loaded)
    for _ in range(2 * NEW_VALUES):
        cycle: list[object] = []
        cycle.append(cycle)
    assert len(gc.get_objects()) < 1.5 * NEW_VALUES  # those found and freed are not there
