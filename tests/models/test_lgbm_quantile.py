import numpy as np
import pytest

from models.lgbm_quantile import MIN_ROWS, LgbmQuantile, file_name
from models.quantiles import QUANTILES


@pytest.fixture(scope="module")
def fitted() -> LgbmQuantile:
    rng = np.random.default_rng(3)
    x = rng.uniform(0.0, 1.0, (6000, 3)).astype(np.float32)
    y = x[:, 0] + rng.normal(0.0, 0.1 + 0.4 * x[:, 1])  # spread grows with the second feature
    return LgbmQuantile.fit(x, y, np.ones(6000))


def test_learns_centre_and_spread(fitted: LgbmQuantile) -> None:
    calm, wild = fitted.predict(np.array([[0.5, 0.05, 0.5], [0.5, 0.95, 0.5]], dtype=np.float32))
    median, ninety = QUANTILES.index(0.5), QUANTILES.index(0.9)
    assert calm[median] == pytest.approx(0.5, abs=0.1)
    # 1.2816 standard deviations of 0.12 and of 0.48 above the centre; boosting smooths the two
    assert calm[ninety] - 0.5 == pytest.approx(0.154, abs=0.15)
    assert wild[ninety] - 0.5 == pytest.approx(0.615, abs=0.15)


def test_never_crossing(fitted: LgbmQuantile) -> None:
    x = np.random.default_rng(4).uniform(-1, 2, (500, 3)).astype(np.float32)
    assert (np.diff(fitted.predict(x), axis=1) >= 0).all()
    assert fitted.predict(x[:0]).shape == (0, len(QUANTILES))


def test_files_give_the_same_forecasts(fitted: LgbmQuantile) -> None:
    x = np.random.default_rng(5).uniform(0, 1, (50, 3)).astype(np.float32)
    again = LgbmQuantile.from_files(fitted.to_files(), 3)
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))


def test_damage_is_refused(fitted: LgbmQuantile) -> None:
    files = fitted.to_files()
    with pytest.raises(ValueError, match="has 3 features, not 4"):
        LgbmQuantile.from_files(files, 4)
    whole = files[file_name(0.99)]
    for damaged in (b"no tree", whole[: len(whole) // 2], b""):
        with pytest.raises(ValueError, match=r"'lgbm-q99.txt' is not a whole LightGBM model"):
            LgbmQuantile.from_files(files | {file_name(0.99): damaged}, 3)
    del files[file_name(0.1)]
    with pytest.raises(ValueError, match=r"'lgbm-q10.txt' is missing"):
        LgbmQuantile.from_files(files, 3)


def test_too_little_or_unknown_is_refused() -> None:
    x = np.zeros((MIN_ROWS, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="too few"):
        LgbmQuantile.fit(x[:10], np.zeros(10), np.ones(10))
    with pytest.raises(ValueError, match="finite"):
        LgbmQuantile.fit(x, np.full(MIN_ROWS, np.nan), np.ones(MIN_ROWS))
