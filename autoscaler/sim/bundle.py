"""Where the simulator's shipped measurements lie: autoscaler/whatif/bundle, described in its notice."""

from importlib.resources import files
from io import StringIO

import pandas as pd


def read_bundled(name: str) -> pd.DataFrame:
    """Read a CSV that ships with the package."""
    text = (files("autoscaler") / "whatif" / "bundle" / name).read_text(encoding="utf-8")
    return pd.read_csv(StringIO(text))
