"""Flushes 5 requests a bin of 30 s and merges as often as can be, until it is killed; prints each bin."""

import sys
from pathlib import Path

from autoscaler.edge import otlp_store
from models.otlp_cells import Amount
from models.otlp_fold import Fold

otlp_store.MERGE_BLOCKS = 3
T0 = 1_767_571_200


def main(folder: Path) -> None:
    fold = Fold(bin_seconds=30)
    with otlp_store.OtlpStore(folder, bin_seconds=30) as store:
        store.restore(fold)
        _, last = store._db.execute("SELECT min(first_bin), max(last_bin) FROM block").fetchone()
        number = T0 // 30 if last is None else last + 1
        while True:
            fold.sources = {(("pod", "1"), ("service.name", "chat")): 1}
            seen = (number * 30.0, number * 30.0 + 30.0)
            fold.cells[number, 1] = {"success": Amount(*seen, 5.0)}
            store.flush(fold)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            store.merge_one(number * 30.0)
            number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
