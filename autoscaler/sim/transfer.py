"""Kernel of the prompts whose keys and values are on their way from a prefill to a decode replica."""

from numba import njit

from autoscaler.sim.state import Ledger


@njit(nogil=True)
def put_under_way(q: Ledger, i: int, since: float, until: float) -> None:
    """Note that request i's keys and values arrive at `until`; the list stays in order of arrival."""
    c = q.tally[0]
    if c.moving_tail == len(
        q.moving
    ):  # the end of the array: what is under way moves to its beginning
        for k in range(c.moving_head, c.moving_tail):
            q.moving[k - c.moving_head] = q.moving[k]
        c.moving_tail -= c.moving_head
        c.moving_head = 0
    k = c.moving_tail
    while k > c.moving_head and q.moving[k - 1].until > until:
        q.moving[k] = q.moving[k - 1]
        k -= 1
    q.moving[k].request, q.moving[k].since, q.moving[k].until = i, since, until
    c.moving_tail += 1
