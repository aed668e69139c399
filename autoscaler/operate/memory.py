"""What survives a restart and a change of leader: damping, error budgets, authority, learned starts."""

import logging
import math
from collections.abc import Iterable, Mapping

import numpy as np

from autoscaler.core.outcome import FloatArray, ServiceState, State
from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeError
from autoscaler.edge.kube.checkpoint import Checkpoint, CheckpointError, StartupRow, load, save
from autoscaler.loop import Controller
from autoscaler.operate.authority import Standing, changed, remembered
from autoscaler.operate.collect import Replicas, VariantKey

log = logging.getLogger("foreserve")
NAME = "foreserve-checkpoint"
DECIMALS = 4  # of shifts, in widths of a forecast
EVERY_SECONDS = 60.0
KEEP_GONE_SECONDS = 3600.0  # a policy that comes back within it has its error budget again
MAX_STARTS = 5000  # the newest: a fleet's start-up times of weeks


class Memory:
    """The operator's memory, in ConfigMaps of its own namespace."""

    def __init__(self, api: KubeApi, namespace: str, clock: Clock) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._recalled_for = ""  # the tenure for which the checkpoint was read
        self._written_at = -math.inf
        self._authority: dict[str, str] = {}
        self._away: set[str] = set()  # services known that were not decided for in the last turn
        self._gone: dict[str, float] = {}  # services without a policy, and since when
        self._doubtful = False  # whether what is remembered may not be the whole story
        self.starts: tuple[StartupRow, ...] = ()

    def recall(self, controller: Controller, tenure: str) -> bool:
        """Read what the leader before wrote, once a tenure; return whether this process may act.

        What cannot be understood is reported and left: every window then begins with what runs. While the
        API server does not answer nothing is known of what another leader did, and nothing may be written.
        """
        if tenure == self._recalled_for:
            return True
        try:
            found = load(self._api, self._namespace, NAME)
        except CheckpointError as error:
            log.error("%s; all windows begin anew", error)  # noqa: TRY400 - one sentence is enough
            controller.restore(State())
            self._authority, found = {}, None
        except KubeError as error:
            log.warning("the checkpoint cannot be read, nothing is written: %s", error)
            return False
        if found is not None:
            controller.restore(found.state, _calibration(found, controller))
            self._authority = dict(found.authority)
            self.starts = tuple(dict.fromkeys((*found.startups, *self.starts)))[-MAX_STARTS:]
            self._doubtful = True
        self._recalled_for = tenure
        return True

    def knows(self, tenure: str) -> bool:
        """Whether the checkpoint was read in this tenure: only then may it be written over."""
        return tenure != "" and tenure == self._recalled_for

    def interrupt(self) -> None:
        """Take note that no turn could be taken: meanwhile others may have done what nobody saw."""
        self._doubtful = True

    def take_note(
        self,
        controller: Controller,
        standings: Mapping[str, Standing],
        replicas: Mapping[VariantKey, Replicas],
        now_seconds: float,
    ) -> frozenset[str]:
        """Remember who may set what; return the services of which that has just changed.

        So it has where a policy came back or was not decided for; and, after a restart or turns that were
        not taken, where what is remembered is not what runs, or no turn was taken for a whole window.
        """
        fresh = set()
        current: dict[str, dict[str, int]] = {}
        for (service, variant), r in replicas.items():
            current.setdefault(service, {})[variant] = r.desired
        for service, standing in standings.items():
            before = self._authority.get(service)
            own = current.get(service, {})
            anew = changed(before, standing) or service in self._away
            if anew or (
                self._doubtful and _outdated(controller, service, standing, own, now_seconds)
            ):
                fresh.add(service)
                controller.begin_anew(service, own, now_seconds)
            self._authority[service] = remembered(before, standing)
        self._doubtful = False
        self._away = set(self._authority.keys() - standings.keys())
        return frozenset(fresh)

    def gone(self, members: Iterable[str], now_seconds: float) -> frozenset[str]:
        """Return the services whose policies have been gone for long, and forget them.

        Not at once: a policy that is deleted and applied again keeps its error budget.
        """
        since = {n: self._gone.get(n, now_seconds) for n in self._authority.keys() - set(members)}
        gone = frozenset(n for n, t in since.items() if now_seconds - t >= KEEP_GONE_SECONDS)
        self._gone = {n: t for n, t in since.items() if n not in gone}
        self._authority = {n: a for n, a in self._authority.items() if n not in gone}
        return gone

    def learn(self, rows: Iterable[StartupRow]) -> None:
        """Remember starts of replicas."""
        self.starts = (*self.starts, *rows)[-MAX_STARTS:]

    def write(self, controller: Controller, *, now: bool) -> str | None:
        """Write a checkpoint if it is time or `now`: why it could not be, "" if done, None if not due."""
        elapsed = self._clock.monotonic()
        if not now and elapsed - self._written_at < EVERY_SECONDS:
            return None
        checkpoint = Checkpoint(
            controller.state,
            self._authority,
            self.starts,
            self._clock.wall(),
            controller.models.generation,
            {name: _rows(shift) for name, shift in controller.calibration().items()},
        )
        self._written_at = elapsed  # one try a minute, also while it fails
        try:
            save(self._api, self._namespace, NAME, checkpoint)
        except KubeConflict as error:
            self._recalled_for = ""  # another leader was here: read what it wrote
            return f"checkpoint: another leader wrote one meanwhile: {error}"
        except (CheckpointError, KubeError) as error:
            return f"checkpoint: {error}"
        return ""


def _rows(shift: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.round(shift, DECIMALS).tolist())


def _calibration(found: Checkpoint, controller: Controller) -> dict[str, FloatArray] | None:
    """Return how forecasts were calibrated; None where other models made them."""
    if found.generation != controller.models.generation:
        return None
    return {
        name: np.array(rows, dtype=np.float64)
        for name, rows in found.calibration.items()
        if len({len(row) for row in rows}) == 1
    }


def _outdated(
    controller: Controller,
    service: str,
    standing: Standing,
    current: Mapping[str, int],
    now_seconds: float,
) -> bool:
    """Whether what is remembered of a service is not the whole story of what runs."""
    known = controller.state.services.get(service, ServiceState())
    scaled_since = standing.writes and any(n != current.get(v, n) for v, n in known.desired.items())
    newest = max((t for holds in known.holds.values() for t, _ in holds), default=math.inf)
    down = controller.policies.services[service].behavior.scale_down
    return scaled_since or now_seconds - newest >= down.stabilization_window_seconds
