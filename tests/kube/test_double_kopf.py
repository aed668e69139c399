"""kopf sees what happens to custom resources on either server, and goes on after broken watches."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kopf
import pytest
from apidouble import ApiDouble
from apiserver import ApiServer

GROUP = "kopf.foreserve.dev"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
THINGS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"things.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"n": {"type": "integer"}}}
                        },
                    }
                },
            }
        ],
    },
}


class Operator:
    """kopf in a thread: remembers (type, name, spec.n) of every event."""

    def __init__(self, server: ApiServer) -> None:
        self.seen: list[tuple[str | None, str, int | None]] = []
        self._server = server
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Operator":
        self._thread.start()
        assert self._ready.wait(timeout=15), "kopf is not ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=15)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        registry = kopf.OperatorRegistry()
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.watching.reconnect_backoff = 0.1
        ca_path = str(self._server.ca_file) if self._server.ca_file else None

        @kopf.on.login(registry=registry)
        def login(**_: object) -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(
                server=self._server.url, token=self._server.token, ca_path=ca_path
            )

        @kopf.on.event(GROUP, "things", registry=registry)
        def note(type: str | None, name: str, spec: kopf.Spec, **_: object) -> None:
            self.seen.append((type, name, spec.get("n")))

        asyncio.run(
            kopf.operator(
                registry=registry,
                settings=settings,
                standalone=True,
                clusterwide=True,
                ready_flag=self._ready,
                stop_flag=self._stop,
            )
        )

    def wait_for(self, *event: object, seconds: float = 15.0) -> None:
        wait_until(lambda: event in self.seen, f"{event} in {self.seen}", seconds)


def wait_until(is_so: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not so after {seconds} s: {what}"
        time.sleep(0.02)


def things(space: str) -> str:
    return f"/apis/{GROUP}/v1/namespaces/{space}/things"


def change(server: ApiServer, space: str, name: str, n: int) -> None:
    merge = "application/merge-patch+json"
    path = f"{things(space)}/{name}"
    code, answer = server.request("PATCH", path, {"spec": {"n": n}}, content_type=merge)
    assert code == 200, answer


def create(server: ApiServer, space: str, name: str, n: int) -> None:
    head = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": name}}
    code, answer = server.request("POST", things(space), {**head, "spec": {"n": n}})
    assert code == 201, answer


@contextlib.contextmanager
def world(server: ApiServer) -> Iterator[str]:
    """Define Thing and make a namespace; take both away again."""
    assert server.request("POST", CRDS, THINGS)[0] == 201
    path = "/api/v1/namespaces"
    name = server.request("POST", path, {"metadata": {"generateName": "kopf-"}})[1]["metadata"][
        "name"
    ]
    wait_until(lambda: server.request("GET", things(name))[0] == 200, "things are served")
    yield name
    server.drop_namespace(name)
    server.request("DELETE", f"{CRDS}/things.{GROUP}")


@pytest.mark.parametrize("which", ["double", "real_kube"])
def test_kopf_sees_create_modify_delete(request: pytest.FixtureRequest, which: str) -> None:
    server: ApiServer = request.getfixturevalue(which)
    with world(server) as space:
        create(server, space, "old", 0)
        with Operator(server) as operator:
            operator.wait_for(None, "old", 0)  # the first list has no event type
            create(server, space, "new", 1)
            operator.wait_for("ADDED", "new", 1)
            change(server, space, "new", 2)
            operator.wait_for("MODIFIED", "new", 2)
            server.request("DELETE", f"{things(space)}/new")
            operator.wait_for("DELETED", "new", 2)
            server.restart()
            change(server, space, "old", 3)
            wait_until(
                lambda: ("old", 3) in [e[1:] for e in operator.seen], "seen after a restart", 40
            )


def test_kopf_goes_on_after_broken_and_expired_watches(double: ApiDouble) -> None:
    with world(double) as space:
        create(double, space, "a", 0)
        with Operator(double) as operator:
            operator.wait_for(None, "a", 0)
            for n, hurt in enumerate((double.break_watches, double.expire_watches), start=1):
                hurt()
                change(double, space, "a", n)
                wait_until(
                    lambda n=n: ("a", n) in [e[1:] for e in operator.seen],  # type: ignore[misc]
                    f"{hurt.__name__}: {operator.seen}",
                )
            double.request("DELETE", f"{things(space)}/a")
            operator.wait_for("DELETED", "a", 2)
