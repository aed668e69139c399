"""What survives a restart and a change of leader: damping, error budgets, authority, learned starts."""

import logging
import math
from collections.abc import Iterable, Mapping

from autoscaler.core.outcome import State
from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeError
from autoscaler.edge.kube.checkpoint import Checkpoint, CheckpointError, StartupRow, load, save
from autoscaler.loop import Controller
from autoscaler.operate.authority import Standing, changed, remembered
from autoscaler.operate.collect import Replicas, VariantKey

log = logging.getLogger("foreserve")
NAME = "foreserve-checkpoint"
EVERY_SECONDS = 60.0
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
            controller.restore(found.state)
            self._authority = dict(found.authority)
            self.starts = tuple(dict.fromkeys((*found.startups, *self.starts)))[-MAX_STARTS:]
        self._recalled_for = tenure
        return True

    def take_note(
        self,
        controller: Controller,
        standings: Mapping[str, Standing],
        replicas: Mapping[VariantKey, Replicas],
        now_seconds: float,
    ) -> frozenset[str]:
        """Remember who may set what; return the services of which that has just changed."""
        fresh = set()
        for service, standing in standings.items():
            before = self._authority.get(service)
            if changed(before, standing):
                fresh.add(service)
                current = {v: r.desired for (s, v), r in replicas.items() if s == service}
                controller.begin_anew(service, current, now_seconds)
            self._authority[service] = remembered(before, standing)
        return frozenset(fresh)

    def gone(self, members: Iterable[str]) -> frozenset[str]:
        """Return the services remembered whose policies exist no more, and forget them."""
        gone = frozenset(self._authority) - frozenset(members)
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
        checkpoint = Checkpoint(controller.state, self._authority, self.starts, self._clock.wall())
        self._written_at = elapsed  # one try a minute, also while it fails
        try:
            save(self._api, self._namespace, NAME, checkpoint)
        except KubeConflict as error:
            self._recalled_for = ""  # another leader was here: read what it wrote
            return f"checkpoint: another leader wrote one meanwhile: {error}"
        except (CheckpointError, KubeError) as error:
            return f"checkpoint: {error}"
        return ""
