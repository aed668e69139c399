"""`kube`: a running API server. `double`: always the double, with faults. `namespace`: one a test."""

import itertools
from collections.abc import Iterator

import pytest
from apidouble import ApiDouble
from apiserver import ApiServer, RealApiServer, binaries

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
