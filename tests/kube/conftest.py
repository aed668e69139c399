"""`kube`: a running API server. `double`: always the double, with faults. `namespace`: one a test."""

import itertools
from collections.abc import Iterator

import pytest
from apidouble import ApiDouble
from apiserver import ApiServer, RealApiServer, binaries
from behaviour_steps import CRDS, GROUP, WIDGETS, wait_until

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def real_kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The real server; skips where its binaries are not found."""
    assets = binaries()
    if assets is None:
        pytest.skip(
            "no kube-apiserver and etcd in KUBEBUILDER_ASSETS or /usr/local/kubebuilder/bin"
        )
    server = RealApiServer(assets, tmp_path_factory.mktemp("kube"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest) -> Iterator[ApiServer]:
    """The real server where its binaries are found, else a double that lives as long."""
    if binaries() is not None:
        yield request.getfixturevalue("real_kube")
        return
    server = ApiDouble()
    yield server
    server.close()


@pytest.fixture
def double() -> Iterator[ApiDouble]:
    """A fresh double, whatever binaries there are: for faults."""
    server = ApiDouble()
    yield server
    server.close()


@pytest.fixture
def namespace(kube: ApiServer) -> Iterator[str]:
    """A namespace of `kube` for one test, emptied and removed after it."""
    name = f"test-{next(_numbers)}"
    code, answer = kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert code == 201, answer
    yield name
    kube.drop_namespace(name)


@pytest.fixture(scope="session", params=["double", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[ApiServer]:
    """Both servers, one after the other, with the kind Widget: what one does, the other does."""
    double = ApiDouble() if request.param == "double" else None
    server: ApiServer = double or request.getfixturevalue("real_kube")
    code, answer = server.request("POST", CRDS, WIDGETS)
    assert code == 201, answer
    wait_until(lambda: server.request("GET", f"/apis/{GROUP}/v1")[0] == 200)
    yield server
    server.request("DELETE", f"{CRDS}/widgets.{GROUP}")
    if double:
        double.close()


@pytest.fixture
def space(server: ApiServer) -> Iterator[str]:
    """A namespace of `server` for one test."""
    name = f"behaviour-{next(_numbers)}"
    assert server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})[0] == 201
    yield name
    server.drop_namespace(name)
