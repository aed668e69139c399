"""Fetch the parts of a plan: in parallel but politely, halved where too much, retried where unavailable."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tenacity.wait import wait_base

from models.contract_api import (
    ApiError,
    QueryApi,
    RefusedError,
    Row,
    TooMuchError,
    UnavailableError,
    no_cycle_search,
)
from models.progress import Progress
from training.ingest.plan import Cache, Chunk

ATTEMPTS = 6
BACK_OFF: wait_base = wait_exponential(multiplier=0.5, max=20.0)  # 0.5 + 1 + 2 + 4 + 8 s in all


@dataclass(frozen=True, slots=True)
class Task:
    """One part: a query over a chunk, as a range or as one instant at its end.

    others: the same by other series names. fold: makes rows of the answers, one a name.
    """

    name: str
    query: str
    chunk: Chunk
    step_seconds: float | None  # None: instant
    others: tuple[str, ...] = ()
    fold: Callable[[Sequence[Sequence[Row]], Chunk], list[Row]] | None = None


def fetch(
    api: QueryApi,
    tasks: Sequence[Task],
    cache: Cache,
    parallel: int,
    progress: Progress,
    wait_between: wait_base = BACK_OFF,
) -> None:
    """Write every part that is not there yet. On failure the others in flight still end and stay.

    Raises ApiError: what was wrong, and that the parts are kept.
    """
    missing = [t for t in tasks if not cache.path(t.name, t.chunk).exists()]
    done = len(tasks) - len(missing)
    progress("fetching", done, len(tasks))

    def one(task: Task) -> None:
        cache.write(task.name, task.chunk, with_retries(lambda: ask(api, task), wait_between))

    with (
        no_cycle_search(),
        ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="ingest") as pool,
    ):
        waiting = {pool.submit(one, t) for t in missing}
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=1.0, return_when=FIRST_EXCEPTION)
                _raise_first(ended)
                done += len(ended)
                progress("fetching", done, len(tasks))
        except ApiError as error:
            raise type(error)(
                f"{error}; {_complete(cache, tasks)} of {len(tasks)} parts are kept in "
                f"{cache.folder}: run again with --resume"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def with_retries(call: Callable[[], list[Row]], wait_between: wait_base = BACK_OFF) -> list[Row]:
    """Return the answer, asking again while the server is unavailable; the last ApiError after that."""
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_between,
        retry=retry_if_exception_type(UnavailableError),
        reraise=True,
    )
    try:
        return list(retrying(call))
    except UnavailableError as error:
        raise UnavailableError(f"{error}; asked {ATTEMPTS} times") from error


def ask(api: QueryApi, task: Task) -> list[Row]:
    """Return the rows of a task; a range that is too much is asked for in halves."""
    step = task.step_seconds
    if step is None:
        return api.instant(task.query, task.chunk.end_seconds)
    answers = [_range(api, query, task.chunk, step) for query in (task.query, *task.others)]
    return answers[0] if task.fold is None else task.fold(answers, task.chunk)


def _range(api: QueryApi, query: str, chunk: Chunk, step: float) -> list[Row]:
    try:
        return api.range(query, chunk.start_seconds, chunk.end_seconds, step)
    except TooMuchError as error:
        points = round((chunk.end_seconds - chunk.start_seconds) / step) + 1
        if points < 2:
            raise RefusedError(
                f"{error}, even for a single instant; raise the server's limits "
                "(Prometheus: --query.max-samples)"
            ) from error
        middle = chunk.start_seconds + (points // 2) * step
        first = _range(api, query, Chunk(chunk.start_seconds, middle - step), step)
        return merged(first, _range(api, query, Chunk(middle, chunk.end_seconds), step))


def merged(first: Sequence[Row], second: Sequence[Row]) -> list[Row]:
    """Join two answers in time: a row per set of labels."""
    rows = {frozenset(r.labels.items()): r for r in first}
    for row in second:
        key = frozenset(row.labels.items())
        before = rows.get(key)
        if before is None:
            rows[key] = row
        else:
            rows[key] = Row(
                row.labels,
                np.concatenate([before.times, row.times]),
                np.concatenate([before.values, row.values]),
            )
    return list(rows.values())


def _complete(cache: Cache, tasks: Sequence[Task]) -> int:
    return sum(cache.path(t.name, t.chunk).exists() for t in tasks)


def _raise_first(ended: set[Future[None]]) -> None:
    for future in ended:
        error = future.exception()
        if error is not None:
            raise error
