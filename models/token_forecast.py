"""Tokens to come, in agreement with the requests to come and with what those requests are.

    quantile = (quantile of the tokens' own forecast + quantile of requests x mean length of the mix) / 2

kept between the requests of that quantile times the least and the most mean length that the classes of
traffic allow. The two err differently (the tokens' own forecast knows their noise, the product the mix), so
that their mean is better than either; and no quantile says a mix that the requests cannot make.
"""

import numpy as np

from models.quantiles import FloatArray


def token_quantiles(
    own: FloatArray, requests: FloatArray, length: FloatArray, bounds: FloatArray
) -> FloatArray:
    """Return quantiles (N, H, Q) of one kind of tokens; never crossing where `own` and `requests` do not.

    `own` and `requests` (N, H, Q) in tokens and requests a step; `length` (N, H) tokens a request and
    `bounds` (N, 2) its least and most, NaN where unknown: there the tokens' own forecast speaks alone.
    """
    made = requests * length[..., np.newaxis]
    both = 0.5 * (own + made)
    least = requests * bounds[:, np.newaxis, :1]
    most = requests * bounds[:, np.newaxis, 1:]
    kept = np.where(np.isfinite(least), np.clip(both, least, most), both)
    return np.where(np.isfinite(made), kept, own)
