"""Made-up services whose classes of traffic are known: chat by day, documents by night."""

import numpy as np

from models.frames import LoadSeries
from models.quantiles import FloatArray

STEP = 900.0
DAY = 96
START = 1.7e9 - 1.7e9 % 86_400
CHAT, DOCUMENTS = np.array([500.0, 200.0]), np.array([8000.0, 100.0])
NIGHT_STEPS = 24  # the first six hours of each UTC day


def documents_share(steps: int) -> FloatArray:
    """Share of the requests that are documents: all by night, none by day."""
    return np.where(np.arange(steps) % DAY < NIGHT_STEPS, 1.0, 0.0)


def load_of(requests: FloatArray, share: FloatArray, seed: int, noise: float = 0.02) -> FloatArray:
    """Load (T, 3) of a service whose `share` (T,) of requests are documents; lengths vary by `noise`."""
    rng = np.random.default_rng(seed)
    lengths = np.outer(1 - share, CHAT) + np.outer(share, DOCUMENTS)
    lengths = lengths * rng.normal(1.0, noise, lengths.shape)
    return np.column_stack([requests, requests[:, np.newaxis] * lengths])


def chat_and_documents(days: int, seed: int = 1) -> FloatArray:
    steps = days * DAY
    requests = np.random.default_rng(seed + 100).poisson(300.0, steps).astype(float)
    return load_of(requests, documents_share(steps), seed)


def chat_only(days: int, seed: int = 2) -> FloatArray:
    steps = days * DAY
    requests = np.random.default_rng(seed + 100).poisson(300.0, steps).astype(float)
    return load_of(requests, np.zeros(steps), seed)


def series_of(**services: FloatArray) -> LoadSeries:
    return LoadSeries(tuple(services), START, STEP, np.stack(list(services.values())))
