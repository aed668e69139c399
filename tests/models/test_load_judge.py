"""Who serves: the fleet's blend, unless a service tells long and clearly of something better."""

import numpy as np
import pytest

from models.load_judge import NOT_BLENDED, first_weights, judge
from models.load_model import BLEND, CANDIDATES, CONTESTANTS, LGBM, LOCAL
from models.load_sample import Sample
from models.quantiles import QUANTILES
from models.simple_rules import RULES

SHAPE = np.array([-1.2816, 0.0, 0.8416, 1.2816, 1.6449, 2.3263])
ORIGINS, LEADS = 200, 2


def world(
    services: int, off: dict[int, float], *, fitted: bool = True, own: float = 0.5
) -> tuple[Sample, np.ndarray]:
    """Level 100, noise 1. Trees know the spread; rules are off by 3, but `level` as `off` says.

    The trees of services' own are off by `own`, the global ones by 0.5.
    """
    rng = np.random.default_rng(4)
    shape = (services, ORIGINS, LEADS)
    centres = np.full((*shape, len(RULES)), 3.0)
    for s in range(services):
        centres[s, :, :, RULES.index("level")] = off.get(s, 3.0)
    each = np.stack([SHAPE + 0.5, SHAPE + 0.5, SHAPE + own])[: 3 if fitted else 0]
    models = np.broadcast_to(each, (*shape, *each.shape))
    flat = np.ones((services, ORIGINS))
    sample = Sample(centres, models, rng.normal(0.0, 1.0, shape), flat, -100 * flat, 200 * flat)
    errors = np.broadcast_to(SHAPE, (services, LEADS, len(RULES), len(QUANTILES)))
    return sample, errors


def test_what_is_best_for_the_fleet_has_the_weight() -> None:
    held, errors = world(4, {})
    verdict = judge(held, errors, days=2.0, fitted=True)
    fleet = dict(zip(CONTESTANTS, verdict.weights[-1], strict=True))
    assert sum(fleet.values()) == pytest.approx(1.0)
    assert fleet[LGBM] + fleet["linear"] > 0.9
    assert all(fleet[name] == 0 for name in NOT_BLENDED)
    assert (verdict.winner == CANDIDATES.index(BLEND)).all()
    assert (verdict.lead_over_last > 1).all()
    np.testing.assert_allclose(verdict.coverage, 0.9, atol=0.04)


def test_a_lucky_weekend_does_not_promote_and_a_month_does() -> None:
    held, errors = world(5, {0: 0.0})  # the level is exactly right for one service, wrong for four
    lucky = judge(held, errors, days=2.0, fitted=True)
    assert CANDIDATES[lucky.winner[0]] == BLEND
    sure = judge(held, errors, days=400.0, fitted=True)
    assert CANDIDATES[sure.winner[0]] == "level"
    assert (sure.winner[1:] == CANDIDATES.index(BLEND)).all()


def test_trees_of_its_own_get_the_weight_that_they_earn() -> None:
    local = CONTESTANTS.index(LOCAL)
    held, errors = world(4, {}, own=0.0)
    verdict = judge(held, errors, days=2.0, fitted=True, own=frozenset({0, 2}))
    assert (verdict.weights[[0, 2], local] > 0.4).all()  # at most half of the trees'
    np.testing.assert_array_equal(verdict.weights[[1, 3, 4], local], 0.0)  # 4: services never seen
    assert np.isfinite(verdict.losses[0, local])
    assert np.isnan(verdict.losses[1, local])
    held, errors = world(4, {}, own=2.0)
    worse = judge(held, errors, days=2.0, fitted=True, own=frozenset({0, 2}))
    assert (worse.weights[:, local] < 0.1).all()


def test_models_that_were_not_fitted_do_not_compete() -> None:
    held, errors = world(2, {}, fitted=False)
    verdict = judge(held, errors, days=2.0, fitted=False)
    np.testing.assert_array_equal(verdict.weights[:, len(RULES) :], 0.0)
    assert np.isnan(verdict.losses[:, CONTESTANTS.index(LGBM)]).all()
    np.testing.assert_allclose(first_weights(fitted=False)[: len(RULES)], 1 / len(RULES))


def test_nothing_held_out_leaves_the_prior() -> None:
    held, errors = world(2, {})
    none = Sample(
        held.centres,
        held.fitted,
        np.full_like(held.actual, np.nan),
        held.scale,
        held.low,
        held.high,
    )
    verdict = judge(none, errors, days=0.0, fitted=True)
    first = dict(zip(CONTESTANTS, first_weights(fitted=True), strict=True))
    expected = [*first.values()]
    expected[CONTESTANTS.index(LGBM)] += expected[-1]  # nobody has trees of its own
    expected[-1] = 0.0
    np.testing.assert_allclose(verdict.weights[0], expected)
    assert np.isnan(verdict.losses[:, :-1]).all()
    assert np.isnan(verdict.lead_over_last).all()
    assert verdict.origins.tolist() == [0, 0]
