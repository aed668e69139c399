"""Classes of traffic: the few kinds of requests, by length, that a service's load is a mix of.

A step's mean lengths are a mean of the classes' lengths, weighted by the classes' shares of its requests:

    (ISL, OSL)[t] = sum over k of share[t, k] * (isl[k], osl[k])

so all means ever seen lie in the hull of the classes. One class is a point (the mix does not move beyond its
noise), two are a line, three a triangle. Classes are the corners of the hull of the means that were seen:
archetypes (Cutler & Breiman, Technometrics 36 (1994)). What never came alone cannot be told apart.
Lengths here are in units of the service's mean lengths, so that input and output count alike.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from models.quantiles import FloatArray

MOST = 3  # classes: means of two lengths lie in a plane
LEAST_MOVE = 0.05  # of the mean length: smaller moves (standard deviation) are one class
TRIM = 0.005  # of the bins at each end of each length: one absurd prompt is no class
CORNER = 0.02  # of the bins may lie beyond a corner
SHORTEST = 0.02  # of the mean length: no class is shorter
DIRECTIONS = 12  # in which corners are looked for
MOST_WIDENED = 2.0
LEAST_AREA = 1e-3  # of a triangle, doubled


@dataclass(frozen=True, slots=True)
class Hull:
    """Corners of S services, in units of their mean lengths. Shapes: (S, MOST, 2), (S,)."""

    corners: FloatArray  # absent classes repeat the first
    count: "np.ndarray[tuple[int], np.dtype[np.int64]]"

    def shares(self, points: FloatArray) -> FloatArray:
        """Return the shares (S, N, MOST), >= 0 with sum 1, that come nearest to `points` (S, N, 2).

        NaN where a point is unknown. The shares of absent classes are 0.
        """
        first = self.corners[:, np.newaxis, 0]
        sides = self.corners[:, 1:] - self.corners[:, :1]  # (S, 2, 2)
        away = points - first
        two = _along(sides[:, np.newaxis, 0], away)
        three = _inside(sides, away)
        kind = self.count[:, np.newaxis]
        b = np.where(kind == 2, two, np.where(kind == 3, three[..., 0], 0.0))
        c = np.where(kind == 3, three[..., 1], 0.0)
        shares = np.clip(np.stack([1.0 - b - c, b, c], axis=-1), 0.0, None)
        shares = shares / shares.sum(axis=-1, keepdims=True)
        known = np.isfinite(points).all(axis=-1, keepdims=True)
        return np.where(known, shares, np.nan)

    def points(self, shares: FloatArray) -> FloatArray:
        """Return the mean lengths (S, N, 2) of mixes with `shares` (S, N, MOST)."""
        mixed: FloatArray = np.einsum("snk,skd->snd", shares, self.corners)
        return mixed


def hull_of(bins: FloatArray, weight: FloatArray) -> tuple[FloatArray, int]:
    """Return the corners (MOST, 2) of one service and how many they are.

    `bins` (N, 2) are mean lengths by bin of time, oldest first, NaN where nothing came, in units of the
    service's mean; `weight` (N,) says how sure each is.
    """
    known = np.isfinite(bins).all(axis=1) & (weight > 0)
    mean = np.ones(2)
    if known.sum() < DIRECTIONS:
        return np.tile(mean, (MOST, 1)), 1
    low, high = np.quantile(bins[known], (TRIM, 1 - TRIM), axis=0)
    points = np.clip(bins, low, high)
    w = np.where(known, weight, 0.0)
    mean = np.nansum(points * w[:, np.newaxis], axis=0) / w.sum()
    sizes, axes = np.linalg.eigh(_lasting_moves(points - mean, w))
    long, wide = np.sqrt(np.maximum(sizes[::-1], 0.0))
    if long < LEAST_MOVE:
        return np.tile(mean, (MOST, 1)), 1
    seen = points[known]
    three = _triangle(seen) if wide >= LEAST_MOVE else None
    if three is not None:
        return three, 3
    axis = axes[:, 1]
    ends = np.quantile((seen - mean) @ axis, (CORNER, 1 - CORNER))
    corners = np.maximum(mean + ends[:, np.newaxis] * axis, SHORTEST)
    return np.concatenate([corners, corners[:1]]), 2


def _lasting_moves(moves: FloatArray, weight: FloatArray) -> FloatArray:
    """Covariance (2, 2) of each bin's move with the next one's: noise, which does not last, drops out."""
    pair = np.sqrt(weight[:-1] * weight[1:])
    pair = np.where(np.isfinite(moves[:-1] + moves[1:]).all(axis=1), pair, 0.0)
    if not pair.sum() > 0:
        return np.zeros((2, 2))
    product = np.einsum("n,ni,nj->ij", pair, np.nan_to_num(moves[:-1]), np.nan_to_num(moves[1:]))
    lasting: FloatArray = (product + product.T) / (2 * pair.sum())
    return lasting


def _triangle(points: FloatArray) -> FloatArray | None:
    """Return the largest triangle (3, 2) between extreme points (N, 2), widened until it holds nearly all.

    None where they lie on a line.
    """
    angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    reach = points @ np.stack([np.cos(angle), np.sin(angle)])
    nearly = np.quantile(reach, 1 - CORNER, axis=0)
    far = np.where(reach <= nearly, reach, -np.inf).argmax(axis=0)
    extreme = np.unique(points[far], axis=0)
    every = [extreme[list(three)] for three in itertools.combinations(range(len(extreme)), MOST)]
    corners = max(every, key=lambda three: abs(_area(three)), default=np.zeros((MOST, 2)))
    if abs(_area(corners)) < LEAST_AREA:
        return None
    inner = np.quantile(_least_share(corners, points), CORNER)
    widened = float(np.clip(1.0 - MOST * inner, 1.0, MOST_WIDENED))
    centre = corners.mean(axis=0)
    grown: FloatArray = np.maximum(centre + widened * (corners - centre), SHORTEST)
    return grown


def _area(three: FloatArray) -> float:
    (ax, ay), (bx, by) = three[1] - three[0], three[2] - three[0]
    return float(ax * by - ay * bx)


def _least_share(corners: FloatArray, points: FloatArray) -> FloatArray:
    """Least barycentric coordinate (N,): negative outside the triangle."""
    away = (points - corners[0])[np.newaxis]
    b, c = np.moveaxis(_inside((corners[1:] - corners[0])[np.newaxis], away)[0], -1, 0)
    least: FloatArray = np.minimum(np.minimum(b, c), 1.0 - b - c)
    return least


def _along(side: FloatArray, away: FloatArray) -> FloatArray:
    """Place (S, N) of points on a line: 0 at its first end, 1 at its second."""
    length = np.maximum((side * side).sum(axis=-1), 1e-12)
    place: FloatArray = (side * away).sum(axis=-1) / length
    return place


def _inside(sides: FloatArray, away: FloatArray) -> FloatArray:
    """Barycentric coordinates (S, N, 2) of the second and third corner; `sides` (S, 2, 2)."""
    (ax, bx), (ay, by) = ((sides[:, :1, i], sides[:, 1:, i]) for i in (0, 1))
    area = ax * by - ay * bx
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    x, y = away[..., 0], away[..., 1]
    return np.stack([(x * by - y * bx) / area, (ax * y - ay * x) / area], axis=-1)
