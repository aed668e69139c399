"""Python's cycle collector in a process that decides every few seconds about values without cycles.

A tick makes and drops some ten thousand small values, all freed by their counts. By default the
collector looks through them, and through all models, again and again in search of cycles that are not
there: a fifth of a tick. It still looks, seldom.
"""

import gc

NEW_VALUES = 200_000  # more than a few ticks of a thousand services leave behind


def collect_seldom() -> None:
    """Leave what is loaded by now alone, and look for cycles only after NEW_VALUES new values."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_VALUES, 20, 20)
