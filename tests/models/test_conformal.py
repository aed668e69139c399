import numpy as np
import pytest

from models.conformal import Conformal
from models.quantiles import QUANTILES

NINETY = QUANTILES.index(0.9)
SHAPE = np.array([-1.28, 0.0, 0.84, 1.28, 1.64, 2.33])


def test_too_narrow_forecasts_are_widened_to_their_level() -> None:
    rng = np.random.default_rng(1)
    actual = rng.normal(0.0, 1.0, (3, 2000, 2))
    forecast = np.broadcast_to(0.65 * SHAPE, (*actual.shape, len(QUANTILES)))
    assert (actual <= forecast[..., NINETY]).mean() < 0.82
    calibrated = Conformal.fit(forecast, actual)
    fresh = rng.normal(0.0, 1.0, (4000, 2))
    upper = calibrated.apply(forecast[0, :1], np.array([0]))
    cover = (fresh[..., np.newaxis] <= upper[0]).mean(axis=(0, 1))
    np.testing.assert_allclose(cover, QUANTILES, atol=0.04)


def test_a_burst_out_of_sleep_does_not_stretch_the_hours_after_it() -> None:
    """Misses are counted in widths: one of 30 narrow widths must not become 30 wide ones."""
    rng = np.random.default_rng(3)
    width = np.where(np.arange(1000) % 100 < 3, 10.0, 0.05)[
        np.newaxis, :, np.newaxis
    ]  # sleep, burst
    actual = rng.normal(0.0, 0.3, (2, 1000, 1)) * width
    actual[:, ::50] += 30.0 * width[:, ::50]  # a burst comes, unforeseen
    fitted = Conformal.fit(width[..., np.newaxis] * SHAPE / 2.56, actual)
    wild = 10.0 * SHAPE / 2.56
    calibrated = fitted.apply(wild[np.newaxis, np.newaxis], np.array([0]))[0, 0]
    assert calibrated[-1] > wild[-1]  # it is wider, for more than one in a hundred lay above
    assert calibrated[-1] <= wild[-1] + 0.5 * 10.0 + 1e-9  # but by no more than half a width


def test_nothing_known_changes_nothing() -> None:
    forecast = np.broadcast_to(SHAPE, (2, 5, 3, len(QUANTILES)))
    fitted = Conformal.fit(forecast, np.full((2, 5, 3), np.nan))
    np.testing.assert_array_equal(fitted.shift, 0.0)
    np.testing.assert_array_equal(
        Conformal.none(2, 3).apply(forecast[:, 0], np.array([0, 2])), forecast[:, 0]
    )


def test_a_service_without_errors_gets_the_fleets_shift() -> None:
    rng = np.random.default_rng(2)
    actual = rng.normal(0.0, 2.0, (2, 400, 1))
    actual[1] = np.nan
    fitted = Conformal.fit(np.broadcast_to(SHAPE, (*actual.shape, len(QUANTILES))), actual)
    np.testing.assert_allclose(fitted.shift[1], fitted.shift[2])
    assert fitted.shift[2, 0, NINETY] > 0.1


def test_quantiles_never_cross_after_calibration() -> None:
    shift = np.zeros((1, 1, len(QUANTILES)))
    shift[..., 2] = 1.9  # 0.8 pushed over all the others
    out = Conformal(shift).apply(SHAPE[np.newaxis, np.newaxis], np.array([0]))
    assert (np.diff(out) >= 0).all()
    assert out.max() == pytest.approx(0.84 + 1.9 * 2.56)
