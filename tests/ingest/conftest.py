"""The fleet of samples.py in each real server, started once."""

from collections.abc import Iterator

import pytest
import samples
import servers


@pytest.fixture(scope="session", params=["prometheus", "victoria-metrics"])
def fleet_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "prometheus":
        servers.needs("prometheus", "promtool")
        file = samples.openmetrics(samples.fleet(), folder / "fleet.om")
        with servers.prometheus(folder / "server", file) as url:
            yield url
    else:
        with servers.victoria_metrics(
            folder / "server", samples.text_format(samples.fleet())
        ) as url:
            yield url
