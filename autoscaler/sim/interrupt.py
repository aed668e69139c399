"""What becomes of the requests of a replica that is taken away."""

import numpy as np

from autoscaler.sim.state import NONE, Ledger, Replicas


def send_back(f: Replicas, q: Ledger, slot: int) -> Ledger:
    """Put the unanswered requests of a slot at the head of the gateway's queue, oldest first.

    They begin again: their tokens so far are lost, and a first token that was seen does not count.
    Returns the ledger with room for their second first tokens.
    """
    s, c = f.state[slot], q.tally[0]
    lost = f.members[slot, : s["joined"]].tolist()
    if s["chunked"] != NONE:
        lost.append(int(s["chunked"]))
    i = int(s["head"])
    while i != NONE:
        lost.append(i)
        i = int(q.request["following"][i])
    if not lost:
        return q
    lost.sort()
    rows = q.request
    again = int(np.isfinite(rows["first"][lost]).sum())
    fields = (("first", np.nan), ("generated", 0), ("moved", 0), ("shared", 0))
    for field, value in fields:
        rows[field][lost] = value
    rows["following"][lost] = [*lost[1:], c["gate_head"]]
    c["gate_head"] = lost[0]
    if c["gate_tail"] == NONE:
        c["gate_tail"] = lost[-1]
    c["gate_waiting"] += len(lost)
    more = np.zeros(again, dtype=np.int64)
    return q._replace(first_log=np.concatenate([q.first_log, more]))
