"""kopf's part: watch, parse, store. No arithmetic, no writing, nothing kept on anybody's object.

The handlers are `on.event` handlers, for which kopf stores neither finalizers nor annotations. Its
watch streams handle reconnects, 410 and CRDs that come and go; should kopf end all the same, it is
started again, and meanwhile the loop lists.
"""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, cast

import kopf

from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.operate.troubles import Troubles

log = logging.getLogger("foreserve.watch")
REFUSED = (
    "the API server does not accept this account's credentials: does the ServiceAccount still exist, was "
    "its token revoked?"
)
RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
FOLLOW_SECONDS = 0.1  # between two looks at what the other thread and kopf say
INACTIVE_SECONDS = 70.0  # a silent stream is opened anew: bookmarks come every minute

STREAM = "watcher for "  # how kopf names the tasks of its watch streams
# kopf's tasks that know the kinds and keep the streams: without either it is ending, or should be
ROOTS = frozenset({"resource observer", "multidimensional multitasker"})
START_SECONDS = 60.0  # for the first stream: pods, nodes and namespaces are served everywhere
LACKING_SECONDS = 5.0  # that a stream may be gone (its CRD is, say) before all are begun anew
END_SECONDS = 5.0  # for kopf to end by itself


class _TellRefusalOnce(logging.Filter):
    """Drops what kopf says, with its stacks, of each try and of credentials that are refused.

    `Watches` tells in one line why watching has ended. Nor is it news that a stream's pause, which is
    cancelled while the stream still asks, cancels it in the way of a task and is none.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        a_try = str(record.msg).startswith("Request attempt")
        a_pause = isinstance(error, AssertionError) and "request_cancel_callback" in str(record.msg)
        return not (isinstance(error, kopf.LoginError) or a_try or a_pause)


logging.getLogger("kopf._core.reactor.running").setLevel(
    logging.ERROR
)  # signals are not kopf's here
for _name in (
    "kopf._core.reactor.running",
    "kopf._core.reactor.observation",
    "kopf._core.reactor.orchestration",
    "asyncio",
):
    logging.getLogger(_name).addFilter(_TellRefusalOnce())

# kopf would ask who runs it, and a container's account need not have a name (uid 65532 without /etc/passwd)
IDENTITY = cast("Any", "foreserve")  # a name for kopf's peering, which is not used

WATCHED: Mapping[str, tuple[str, str, str]] = {
    "policies": ("foreserve.dev", "v1alpha1", "scalingpolicies"),
    "pools": ("foreserve.dev", "v1alpha1", "acceleratorpools"),
    "pods": ("", "v1", "pods"),
    "nodes": ("", "v1", "nodes"),
    "namespaces": ("", "v1", "namespaces"),
}


def login_to(api: KubeApi) -> kopf.ConnectionInfo:
    """Return kopf's way to the same server, as the same account, with a token read just now."""
    own = api.configuration
    header = own.get_api_key_with_prefix("BearerToken") or own.get_api_key_with_prefix(
        "authorization"
    )
    scheme, _, token = (header or "").partition(" ")
    return kopf.ConnectionInfo(
        server=own.host,
        ca_path=own.ssl_ca_cert or None,
        insecure=not own.verify_ssl,
        username=own.username or None,
        password=own.password or None,
        scheme=scheme if token else None,
        token=token or scheme or None,
        certificate_path=own.cert_file or None,
        private_key_path=own.key_file or None,
    )


def registry_of(cluster: Cluster, api: KubeApi) -> kopf.OperatorRegistry:
    """Return kopf's registry with a handler for every kind that is watched."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def connect(**_: object) -> kopf.ConnectionInfo:
        return login_to(api)

    for kind, (group, version, plural) in WATCHED.items():
        _watch(registry, cluster, kind, (group, version, plural))
    return registry


def _watch(
    registry: kopf.OperatorRegistry, cluster: Cluster, kind: str, resource: tuple[str, str, str]
) -> None:
    @kopf.on.event(*resource, registry=registry, id=f"store-{kind}")
    async def store(event: kopf.RawEvent, **_: object) -> None:
        cluster.apply(kind, event["type"], event["object"])


def settings_of() -> kopf.OperatorSettings:
    """Return kopf's settings: no Kubernetes events of its own, quick to end."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.watching.inactivity_timeout = INACTIVE_SECONDS
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30.0
    settings.queueing.idle_timeout = 1.0
    settings.process.ultimate_exiting_timeout = None  # after which kopf would kill this process
    return settings


class _LostError(Exception):
    """Watching is not whole."""


class Watches:
    """kopf in a thread of its own, started again whenever it ends. `alive` says whether it runs."""

    def __init__(self, cluster: Cluster, api: KubeApi) -> None:
        self._cluster = cluster
        self._api = api
        self._stop = threading.Event()
        self._running = threading.Event()
        self._troubles = Troubles("watching", over="watch streams are open again")
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether watch streams are open."""
        return self._running.is_set() and self._thread.is_alive()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """End the watches."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                asyncio.run(self._operate())
                why, told = "ended", "kopf gave up"
            except kopf.LoginError:
                why, told = "401 Unauthorized", REFUSED
            except _LostError as error:
                why, told = "not whole", str(error)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - watching goes on
                why, told = type(error).__name__, str(error) or "no message"
            self._running.clear()
            if self._stop.is_set():
                return
            self._troubles.follow({why: f"{told}; it is begun anew"}, time.monotonic())
            failures = 0 if time.monotonic() - begun > RESTART_SECONDS[-1] else failures
            self._stop.wait(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
            failures += 1

    async def _operate(self) -> None:
        ready = asyncio.Event()
        stop = (
            asyncio.Event()
        )  # for a threading.Event kopf keeps a thread, which no end of kopf's ends
        operator = asyncio.create_task(
            kopf.operator(
                registry=registry_of(self._cluster, self._api),
                settings=settings_of(),
                standalone=True,
                clusterwide=True,
                identity=IDENTITY,
                ready_flag=ready,
                stop_flag=stop,
            )
        )
        follower = asyncio.create_task(self._follow(ready))
        await asyncio.wait({operator, follower}, return_when=asyncio.FIRST_COMPLETED)
        self._running.clear()
        stop.set()
        await asyncio.wait({operator}, timeout=END_SECONDS)
        await _cancel_all()
        for task in (operator, follower):
            if not task.cancelled():
                task.result()

    async def _follow(self, ready: asyncio.Event) -> None:
        """Follow kopf until it is to end; raises why watching is not whole, and then kopf is to end too.

        kopf outlives the failure of its parts, and so may watch half of what it should for ever: of
        credentials that are refused, its streams may learn only when nobody fetches new ones any more.
        """
        most, whole_at = 0, time.monotonic()
        roots: set[asyncio.Task[Any]] = set()
        followed: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        while not self._stop.is_set():
            tasks = asyncio.all_tasks()
            for task in tasks.difference(followed):
                task.add_done_callback(_take_error)
                followed.add(task)
            roots.update(t for t in tasks if t.get_name() in ROOTS)
            ended = [root for root in roots if root.done()]
            for root in ended:
                if not root.cancelled():
                    root.result()  # raises what it has ended of
            if ended:
                raise _LostError(f"kopf's {ended[0].get_name()} has ended")
            streams = sum(t.get_name().startswith(STREAM) for t in tasks)
            most = max(most, streams)
            whole_at = time.monotonic() if most and streams == most else whole_at
            lacking_seconds = time.monotonic() - whole_at
            if most and lacking_seconds > LACKING_SECONDS:
                raise _LostError(f"{most - streams} of {most} watch streams have ended")
            if lacking_seconds > START_SECONDS:
                raise _LostError(f"no watch stream was opened within {START_SECONDS:.0f} s")
            if ready.is_set() and streams and not self._running.is_set():
                self._running.set()
                self._troubles.follow({}, time.monotonic())
            await asyncio.sleep(FOLLOW_SECONDS)


async def _cancel_all() -> None:
    """Cancel every other task until none is left.

    A stream of kopf's that is cancelled together with its pause takes that for a pause, and goes on.
    """
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.add_done_callback(_take_error)
            task.cancel()
        await asyncio.wait(tasks, timeout=1.0)


def _take_error(task: asyncio.Task[Any]) -> None:
    """Take a task's error: kopf tells it and asks none, which asyncio would tell much later."""
    if not task.cancelled() and task.exception() is not None:
        log.debug("%s: %r", task.get_name(), task.exception())
