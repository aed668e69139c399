"""Kernel of the prompts whose keys and values are on their way from a prefill to a decode replica."""

from numba import njit

from autoscaler.sim.state import Ledger


@njit(nogil=True)
def put_under_way(q: Ledger, i: int, since: float, until: float) -> None:
    """Note that request i's keys and values arrive at `until`; the list stays in order of arrival."""
    c = q.tally[0]
    if c.moving_tail == len(
        q.moving
    ):  # the end of the arrays: those under way move to the beginning
        for k in range(c.moving_head, c.moving_tail):
            _copy(q, k, k - c.moving_head)
        c.moving_tail -= c.moving_head
        c.moving_head = 0
    k = c.moving_tail
    while k > c.moving_head and q.moving_until[k - 1] > until:
        _copy(q, k - 1, k)
        k -= 1
    q.moving[k], q.moving_since[k], q.moving_until[k] = i, since, until
    c.moving_tail += 1


@njit(nogil=True)
def _copy(q: Ledger, source: int, target: int) -> None:
    q.moving[target] = q.moving[source]
    q.moving_since[target] = q.moving_since[source]
    q.moving_until[target] = q.moving_until[source]
