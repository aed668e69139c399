"""How long forecasts take, and what the grid of leads costs.

    python benchmarks/bench_forecast_speed.py [--services 10 100 1000]

CPU seconds on one core: 120 steps of a minute and 6 quantiles for fleets of growing size, best of some
runs. "forecast" is all that comes after the features are there: trees, rules, blend, calibration, and
the steps between the leads of the grid. The second table compares the trees' own forecasts at each of
120 steps with those interpolated from the grid, on days that they were not fitted on.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from models.features import Grid, look_back
from models.frames import LoadSeries
from models.load_fit import fit_load
from models.load_model import LoadModel, Seen
from models.losses import pinball_loss
from models.quantiles import QUANTILES, FloatArray, LoadForecast

STEP_SECONDS = 60.0
DAY_STEPS = 1440
FIT_SERVICES, FIT_DAYS = 2, 3
MOST_STEPS = 120
RUNS = 5
EVERY_LEAD = np.arange(1, MOST_STEPS + 1)


def fleet(services: int, days: int, seed: int) -> FloatArray:
    """Poisson counts around daily cycles of different height and phase, wandering by 2 % a minute."""
    rng = np.random.default_rng(seed)
    at = np.arange(days * DAY_STEPS)
    mean = np.exp(rng.uniform(np.log(5), np.log(3000), (services, 1)))
    phase = rng.uniform(0, 2 * np.pi, (services, 1))
    cycle = 1 + 0.7 * np.sin(2 * np.pi * at / DAY_STEPS + phase)
    noise = np.empty((services, at.size))
    level = np.zeros(services)
    for t in at:
        level = 0.98 * level + rng.normal(0.0, 0.02, services)
        noise[:, t] = level
    return rng.poisson(mean * cycle * np.exp(noise)).astype(np.float64)


def best(work: Callable[[], object]) -> float:
    """Least CPU seconds of some runs."""
    spent = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return min(spent)


def speed(model: LoadModel, services: int) -> None:
    """Print one line of the first table."""
    values = fleet(services, 8, 2)[:, -model.history_steps :]
    names = [f"p/{i}" for i in range(services)]
    origins = np.arange(services), np.full(services, values.shape[1] - 1)
    grid = Grid(STEP_SECONDS)

    def gather() -> Seen:
        return model.seen(names, look_back(values, 0.0, grid, origins, model.leads_steps))

    seen = gather()

    def forecast() -> FloatArray:
        u = model.quantiles(names, seen)
        return model.wrap(names, 0.0, seen.known.expand(u)).every_step()

    assert forecast().shape == (services, MOST_STEPS, len(QUANTILES))
    tracemalloc.start()
    forecast()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"{services:9d} {best(gather) * 1e3:12.1f} {best(forecast) * 1e3:12.1f} {peak:10.1f}")


def cost(model: LoadModel) -> None:
    """Print what the grid costs in pinball loss."""
    trees = model.trees()
    values = fleet(FIT_SERVICES, FIT_DAYS + 2, 1)
    at = np.arange(FIT_DAYS * DAY_STEPS, values.shape[1] - MOST_STEPS, 97)
    origins = np.repeat(np.arange(FIT_SERVICES), at.size), np.tile(at, FIT_SERVICES)
    truth = values[origins[0][:, None], origins[1][:, None] + EVERY_LEAD]
    grid, found = Grid(STEP_SECONDS), {}
    for name, leads in (("every step", EVERY_LEAD), ("grid", model.leads_steps)):
        names = [f"fit/{i}" for i in origins[0]]
        seen = model.seen(names, look_back(values, 0.0, grid, origins, leads))
        u = trees.predict(seen.matrix).reshape(truth.shape[0], leads.size, -1)
        made = LoadForecast((), 0.0, STEP_SECONDS, leads, seen.known.expand(u), ())
        found[name] = pinball_loss(truth, made.every_step(), QUANTILES) / truth.mean()
    ratio = found["grid"] / found["every step"]
    print(f"pinball loss over the mean, {truth.shape[0]} cutoffs x {MOST_STEPS} steps:")
    print(
        f"  every step {found['every step']:.5f}   grid of {model.leads_steps.size} leads", end=""
    )
    print(f" {found['grid']:.5f}   ratio {ratio:.4f}")


def main() -> None:
    """Fit once, then print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--services", type=int, nargs="+", default=[10, 100, 1000])
    args = parser.parse_args()
    known = fleet(FIT_SERVICES, FIT_DAYS, 1)
    values = np.repeat(known[:, :, np.newaxis], 3, axis=2)
    names = tuple(f"fit/{i}" for i in range(FIT_SERVICES))
    series = LoadSeries(names, 0.0, STEP_SECONDS, values)
    model = fit_load(series, target="requests", leads_steps=None, progress=None)
    print(f"{'services':>9} {'features ms':>12} {'forecast ms':>12} {'peak MiB':>10}")
    for services in args.services:
        speed(model, services)
    cost(model)


if __name__ == "__main__":
    main()
