"""`served`: a scaler on a free port whose policies and clock the test sets."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "kube"))

from apidouble import ApiDouble
from scaler_rig import Served


@pytest.fixture
def served() -> Iterator[Served]:
    rig = Served()
    yield rig
    rig.close()


@pytest.fixture
def double() -> Iterator[ApiDouble]:
    server = ApiDouble()
    yield server
    server.close()
