"""Helpers beside the tests are importable by their own name."""

import sys
from pathlib import Path

from hypothesis import settings

settings.register_profile("busy", deadline=None)  # the machine may be busy: slow is no failure
settings.load_profile("busy")

sys.path.insert(0, str(Path(__file__).parent / "core"))
sys.path.insert(0, str(Path(__file__).parent / "cli"))
sys.path.insert(0, str(Path(__file__).parent / "pages"))
