"""Python's cycle collector in a process that decides every few seconds about values without cycles.

A tick makes and drops some ten thousand small values, all freed by their counts. By default the
collector looks through them, and through all models, again and again in search of cycles that are not
there: a fifth of a tick. It still looks, seldom.
"""

import contextlib
import ctypes
import gc

import pyarrow as pa

TRIM_BYTES, MMAP_BYTES = 16 * 2**20, 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
NEW_VALUES = 200_000  # more than a few ticks of a thousand services leave behind


def collect_seldom() -> None:
    """Leave what is loaded by now alone, and look for cycles only after NEW_VALUES new values."""
    give_back()
    gc.freeze()
    gc.set_threshold(NEW_VALUES, 20, 20)


def keep_little() -> None:
    """Give large arrays back to the system as soon as they are dropped; for the whole process, early.

    The C library raises its bound for that with every large array that it sees, up to 32 MiB, and then
    keeps and splits what the next array of a history or of a forecast would need in one piece.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has its own ways
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def give_back() -> None:
    """Hand memory that is free by now back to the system: what loading took and what is read is much."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps what it has
        ctypes.CDLL(None).malloc_trim(0)
