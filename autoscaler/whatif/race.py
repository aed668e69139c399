"""All runs of a comparison, kept going in the pool: the next setting of a search as soon as it is known."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.whatif.cache import RunCache, code_digest, digest, file_digest
from autoscaler.whatif.learning import TRAINING, Learned
from autoscaler.whatif.pool import Held, Pool
from autoscaler.whatif.results import FORESERVE, Measures, RunResult, Try, World, combine
from autoscaler.whatif.rivals import Setting
from autoscaler.whatif.run import Driven
from autoscaler.whatif.tuning import Search
from autoscaler.whatif.uncertainty import by_hour
from models.progress import Progress

SEARCH_RUNS = 5  # at most, for each averaging window of a rival
RUNS = "simulated runs"  # what the progress speaks of
Then = Callable[[Driven], None]


@dataclass(slots=True)
class Contest:
    """The search for one rival's best setting; holds the best run so far."""

    name: str
    attainments: Mapping[str, float]
    open: list[tuple[Setting, Search]]  # empty: the setting is fixed
    tries: list[Try] = field(default_factory=list)
    best: tuple[Setting, Driven] | None = None
    tuned: bool = True
    fixed: Setting | None = None

    def next_setting(self) -> tuple[Setting, Search] | None:
        """Return what to run next; None when every search is done."""
        while self.open:
            template, search = self.open[0]
            value = search.next_setting()
            if value is not None:
                return replace(template, value=value), search
            self.open.pop(0)
        return None

    def take(self, setting: Setting, search: Search | None, driven: Driven) -> None:
        """Note a finished run."""
        total = combine(driven.services, driven.max_replicas)
        self.tries.append(Try(setting.words(), total.cost_usd, total.slo_attainment_ratio))
        if search is not None:
            search.tell(setting.value, attained(driven.services, self.attainments))
        if self.best is None or self._better(driven, self.best[1]):
            self.best = setting, driven

    def _better(self, new: Driven, old: Driven) -> bool:
        """Meeting the attainment counts first, then cost; of two that miss, the nearer one."""
        highest = max(self.attainments.values())
        a, b = (attained(d.services, self.attainments) for d in (new, old))
        if (a >= highest) != (b >= highest):
            return a >= highest
        return _cost(new) < _cost(old) if a >= highest else a > b


def attained(services: Mapping[str, Measures], asked: Mapping[str, float]) -> float:
    """Return one attainment for all services: the worst, on the scale of the strictest.

    Missed shares are compared with what each service may miss: 2 % missed of 4 % allowed is as good
    as 0.5 % of 1 %.
    """
    scale = 1.0 - max(asked.values())
    used = [
        (1.0 - m.slo_attainment_ratio) / (1.0 - asked[name])
        for name, m in services.items()
        if math.isfinite(m.slo_attainment_ratio)
    ]
    return 1.0 - scale * max(used, default=0.0)


@dataclass(slots=True)
class Heat:
    """One case and who runs in it. `learned`: None where Foreserve does not."""

    held: Held
    contests: Sequence[Contest]
    learned: Learned | None = None
    started: bool = False  # Foreserve
    results: dict[str, RunResult] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of this world."""
        return self.held.case.seed


class Race:
    """Runs heats side by side in a pool; what the cache holds is not run again."""

    def __init__(self, pool: Pool, kept: RunCache, progress: Progress) -> None:
        self._pool, self._kept, self._progress = pool, kept, progress
        self._waiting: dict[Future[Driven], tuple[str, Then]] = {}
        self._ready: deque[tuple[Driven, Then]] = deque()  # from the cache
        self._heats: list[Heat] = []
        self._done = 0
        self._code = code_digest()

    def enter(self, heat: Heat) -> None:
        """Start the rivals of a heat; Foreserve starts when its models are there."""
        self._heats.append(heat)
        for contest in heat.contests:
            self._advance(heat, contest)

    def finish(self) -> None:
        """Run until every heat that was entered has its results."""
        self._start_foreserve()
        while self._waiting or self._ready or self._trainings():
            if self._ready:
                driven, then = self._ready.popleft()
                self._done += 1
                then(driven)
            else:
                self._take_finished()
            self._progress(RUNS, self._done, max(1, self._expected()))
        for heat in self._heats:
            for contest in heat.contests:
                if contest.best is not None:
                    heat.results[contest.name] = _result_of(contest, heat.seed)
        self._heats = []
        self._progress(RUNS, max(1, self._done), max(1, self._done))

    def _trainings(self) -> dict["Future[Any]", list[Learned]]:
        """Return the trainings under way, each with all that wait for it."""
        out: dict[Future[Any], list[Learned]] = {}
        for heat in self._heats:
            if heat.learned is not None and heat.learned.training is not None:
                out.setdefault(heat.learned.training, []).append(heat.learned)
        return out

    def _take_finished(self) -> None:
        trainings = self._trainings()
        finished, _ = wait([*self._waiting, *trainings], return_when=FIRST_COMPLETED)
        for future in [f for f in trainings if f in finished]:
            future.result()  # a failure of the training is raised here
            for learned in trainings[future]:
                learned.training = None
                if learned.keep is not None:
                    self._kept.keep_learned(*learned.keep)
            self._progress(TRAINING, 1, 1)
        self._start_foreserve()
        for future in [f for f in self._waiting if f in finished]:
            key, then = self._waiting.pop(future)
            driven = future.result()
            self._kept.put(key, driven)
            self._done += 1
            then(driven)

    def _expected(self) -> int:
        """Guess how many runs there will be: those done, those asked for, and what may follow."""
        more = sum(SEARCH_RUNS * max(0, len(c.open) - 1) for h in self._heats for c in h.contests)
        late = sum(h.learned is not None and not h.started for h in self._heats)
        return self._done + len(self._waiting) + len(self._ready) + more + late

    def _start_foreserve(self) -> None:
        for heat in self._heats:
            learned = heat.learned
            if learned is None or heat.started or learned.training is not None:
                continue
            heat.started = True
            files = file_digest(learned.models), file_digest(learned.history)
            key = digest(FORESERVE, heat.held.key, files, self._code)
            self._submit(key, self._foreserve(heat, learned), self._keep_foreserve(heat))

    def _foreserve(self, heat: Heat, learned: Learned) -> "Callable[[], Future[Driven]]":
        return lambda: self._pool.foreserve(heat.held, learned.models, learned.history)

    def _keep_foreserve(self, heat: Heat) -> Then:
        def then(driven: Driven) -> None:
            heat.results[FORESERVE] = _result(FORESERVE, "as its policies say", driven, heat.seed)

        return then

    def _advance(self, heat: Heat, contest: Contest) -> None:
        found = contest.next_setting()
        setting, search = found if found is not None else (contest.fixed, None)
        if setting is None or (found is None and contest.tries):
            return

        def then(driven: Driven) -> None:
            contest.take(setting, search, driven)
            self._advance(heat, contest)

        key = digest(setting, heat.held.key, self._code)
        self._submit(key, lambda: self._pool.rival(heat.held, setting), then)

    def _submit(self, key: str, run: "Callable[[], Future[Driven]]", then: Then) -> None:
        driven = self._kept.get(key)
        if driven is not None:
            self._ready.append((driven, then))
        else:
            self._waiting[run()] = key, then


def _result_of(contest: Contest, seed: int) -> RunResult:
    assert contest.best is not None  # noqa: S101  (the caller asked)
    setting, driven = contest.best
    result = _result(contest.name, setting.words(), driven, seed)
    tries = tuple(contest.tries)
    return replace(result, tuned=contest.tuned, tried=len(tries), tries=tries)


def _result(name: str, setting: str, driven: Driven, seed: int) -> RunResult:
    measures = combine(driven.services, driven.max_replicas)
    tried = Try(setting, measures.cost_usd, measures.slo_attainment_ratio)
    return RunResult(
        name=name,
        setting=setting,
        tuned=False,
        tried=1,
        measures=measures,
        services=driven.services,
        series=driven.series,
        tries=(tried,),
        worlds=(World(seed, measures, by_hour(driven.series)),),
    )


def _cost(driven: Driven) -> float:
    return sum(m.cost_usd for m in driven.services.values())
