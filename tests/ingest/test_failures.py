"""What servers do wrong: each is one clear sentence, and nothing that was fetched is lost."""

import base64
import json
import ssl
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import samples
import servers
from double import Answer, Plan, ok, refusal, serving, vector
from foreserve_process import run
from tenacity import wait_none

from autoscaler.edge.prometheus_api import MAX_ANSWER_BYTES, Access, PrometheusApi, checked_url
from models.contract import Labels
from models.contract_api import (
    ApiError,
    QueryApi,
    RefusedError,
    Row,
    TooMuchError,
    UnavailableError,
    clock_skew_sentence,
    rows_of,
    warnings_of,
)
from training.ingest import IngestError
from training.ingest.fetch import Task, ask, fetch, with_retries
from training.ingest.plan import Cache, Chunk, Probe, Request
from training.ingest.prometheus import ingest_prometheus
from training.telemetry import read_telemetry


def asking(plan: Plan, **access: object) -> ApiError:
    with (
        serving(plan) as (url, _),
        PrometheusApi(Access(url, timeout_seconds=1.0, **access)) as api,
    ):  # type: ignore[arg-type]
        with pytest.raises(ApiError) as error:
            api.instant("up", 0.0)
        return error.value


@pytest.mark.parametrize(
    ("status", "words", "kind", "says"),
    [
        (401, "no credentials", RefusedError, "--bearer-token-file"),
        (403, "not your tenant", RefusedError, "not your tenant"),
        (401, "no org id", RefusedError, "--tenant"),  # Mimir without X-Scope-OrgID
        (
            422,
            "the query exceeded the maximum number of chunks (err-mimir-max-chunks-per-query)",
            TooMuchError,
            "err-mimir",
        ),
        (404, "page not found", RefusedError, "address before /api/v1"),
        (400, "parse error: unexpected end", RefusedError, "parse error"),
        (
            422,
            "exceeded maximum resolution of 11,000 points per timeseries",
            TooMuchError,
            "11,000",
        ),
        (422, "query processing would load too many samples into memory", TooMuchError, "too many"),
        (429, "slow down", UnavailableError, "429"),
        (503, "upstream is down", UnavailableError, "upstream is down"),
    ],
)
def test_each_status_is_one_sentence(
    status: int, words: str, kind: type[ApiError], says: str
) -> None:
    error = asking(lambda *_: refusal(status, words))
    assert type(error) is kind
    assert says in str(error)
    assert "\n" not in str(error)
    assert str(error).startswith("http://127.0.0.1:")


def test_a_redirect_is_not_followed() -> None:
    error = asking(lambda *_: (302, {"Location": "http://127.0.0.1:1/"}, b""))
    assert "answered 302" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            (200, {"X-Half": "1"}, vector([({"a": "b"}, 1.0, "2")])[2]), id="cut connection"
        ),
        pytest.param((200, {}, b'{"status":"success","data":{"resu'), id="half a body"),
        pytest.param((200, {}, b"<html>login</html>"), id="a login page"),
    ],
)
def test_a_body_that_is_not_whole_json(answer: Answer) -> None:
    error = asking(lambda *_: answer)
    assert isinstance(error, UnavailableError)
    assert "cut off" in str(error)


@pytest.mark.parametrize("how", ["X-Hang", "X-Drip"])
def test_a_server_that_hangs_or_drips_costs_the_time_out(how: str) -> None:
    begin = time.monotonic()
    error = asking(lambda *_: (200, {how: "1"}, ok([])[2] * 10))
    assert isinstance(error, UnavailableError)
    assert time.monotonic() - begin < 4
    assert "in time" in str(error) or "in 1 s" in str(error)


def test_a_connection_that_is_refused() -> None:
    with (
        PrometheusApi(Access(f"http://127.0.0.1:{servers.free_port()}")) as api,
        pytest.raises(UnavailableError, match=r"cannot connect .*is the address right"),
    ):
        api.instant("up", 0.0)


@pytest.mark.parametrize("url", ["", "prometheus:9090", "ftp://x", "http://", "http://[::1"])
def test_no_address(url: str) -> None:
    with pytest.raises(RefusedError, match="allowed: http://host:9090"):
        checked_url(url)


def test_json_of_something_else() -> None:
    assert "data.result" in str(asking(lambda *_: (200, {}, b'{"hello": 1}')))
    assert "not a list" in str(asking(lambda *_: ok({"result": {"a": 1}})))
    assert "not one of the Prometheus API" in str(
        asking(lambda *_: ok({"result": [{"metric": {}}]}))
    )


def test_duplicate_series_in_one_answer_are_refused() -> None:
    twice = [({"service": "a"}, 1.0, "2"), ({"service": "a"}, 1.0, "3")]
    assert "two series with the same labels" in str(asking(lambda *_: vector(twice)))


def test_nan_and_infinity_are_read_as_such() -> None:
    rows = rows_of([{"metric": {}, "values": [[1, "NaN"], [2, "+Inf"], [3, "1"]]}], "here")
    np.testing.assert_array_equal(rows[0].values, [np.nan, np.inf, 1.0])


def test_an_answer_beyond_all_bounds_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ANSWER_BYTES == 512 * 1024 * 1024
    monkeypatch.setattr("autoscaler.edge.prometheus_api.MAX_ANSWER_BYTES", 1000)
    assert isinstance(asking(lambda *_: (200, {}, b"x" * 5000)), TooMuchError)


def test_credentials_tenant_and_token_are_sent(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    seen: list[dict[str, str]] = []

    def plan(_path: str, _query: dict[str, str], headers: dict[str, str]) -> Answer:
        seen.append(headers)
        return vector([({}, 1.0, "1")])

    with serving(plan) as (url, _):
        for access in (
            Access(url, user="me", password_file=secret, tenant="team-a"),
            Access(url, bearer_token_file=secret),
        ):
            with PrometheusApi(access) as api:
                api.instant("up", 1.0)
    assert seen[0]["Authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert seen[0]["X-Scope-OrgID"] == "team-a"
    assert seen[1]["Authorization"] == "Bearer s3cret"


def test_a_partial_answer_is_told_once_and_used(caplog: pytest.LogCaptureFixture) -> None:
    """Thanos without one of its stores: 200, what there is, and a warning."""
    words = "receive series from store-gateway-1: rpc error: code = Unavailable"
    result = [{"metric": {"x": '"warnings":["no"]'}, "value": [1.0, "2"]}]
    data = {"resultType": "vector", "result": result}
    content = {"status": "success", "data": data, "warnings": [words]}

    def plan(*_: object) -> Answer:
        return 200, {}, json.dumps(content, separators=(",", ":")).encode()

    with serving(plan) as (url, _), PrometheusApi(Access(url)) as api:
        for _ in range(3):
            assert api.instant("up", 1.0)[0].values[0] == 2
    assert [r.getMessage() for r in caplog.records] == [f"{url}: an answer with a warning: {words}"]


def test_warnings_of_an_answer() -> None:
    assert warnings_of(b'{"status":"success","data":{},"warnings":["a","b"]}') == ["a", "b"]
    assert warnings_of(b'{"status":"success","data":{}}') == []
    assert warnings_of(b'{"data":{},"warnings":["a') == []


def test_secrets_in_files_that_cannot_be(tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.write_text("a\nb\n")
    for bad in (two, tmp_path / "none"):
        with pytest.raises(RefusedError, match=str(bad)):
            PrometheusApi(Access("http://localhost", bearer_token_file=bad))
    with pytest.raises(RefusedError, match="--password-file"):
        PrometheusApi(Access("http://localhost", user="me"))


def test_an_address_with_a_password_is_not_shown() -> None:
    with (
        PrometheusApi(Access(f"http://me:hidden@127.0.0.1:{servers.free_port()}")) as api,
        pytest.raises(ApiError) as error,
    ):
        api.instant("up", 0.0)
    assert "hidden" not in str(error.value)


def test_a_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    servers.needs("openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*make, *more], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with serving(lambda *_: vector([({}, 1.0, "7")])) as (url, server):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        https = url.replace("http:", "https:")
        with PrometheusApi(Access(https)) as api, pytest.raises(RefusedError, match="--ca-file"):
            api.instant("up", 1.0)
        with PrometheusApi(Access(https, ca_file=cert)) as api:
            assert api.instant("up", 1.0)[0].values[0] == 7


def test_clock_skew_is_told() -> None:
    assert clock_skew_sentence(1000.0, 1010.0, 30.0) == ""
    assert "100 s ahead of" in clock_skew_sentence(1110.0, 1010.0, 30.0)
    assert "behind" in clock_skew_sentence(900.0, 1010.0, 30.0)


class Counting:
    """Points 0, 1, 2, ... of one series; refuses ranges of more than `most` points."""

    def __init__(self, most: int = 10**9, failures: int = 0) -> None:
        self.most, self.failures, self.asked = most, failures, 0
        self.lock = threading.Lock()

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        return self.range(query, at_seconds, at_seconds, 1.0)

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        del query
        with self.lock:
            self.asked += 1
            if self.asked <= self.failures:
                raise UnavailableError("server: answered 503 (busy)")
        times = np.arange(start_seconds, end_seconds + step_seconds / 2, step_seconds)
        if len(times) > self.most:
            raise TooMuchError("server: answered 422 (exceeded maximum resolution)")
        return [Row({"service": "a"}, times, times.copy())]


@pytest.mark.parametrize("most", [1, 2, 7, 50])
def test_too_many_points_are_halved_without_hole_or_duplicate(most: int) -> None:
    task = Task("x", "q", Chunk(60.0, 6000.0), 60.0)
    (row,) = ask(Counting(most), task)
    np.testing.assert_array_equal(row.times, np.arange(60.0, 6001.0, 60.0))


def test_a_single_instant_that_is_too_much_ends() -> None:
    with pytest.raises(RefusedError, match="even for a single instant"):
        ask(Counting(0), Task("x", "q", Chunk(60.0, 120.0), 60.0))


def test_busy_servers_are_asked_again_a_bounded_number_of_times() -> None:
    api = Counting(failures=3)
    assert with_retries(lambda: api.instant("q", 1.0), wait_none())
    assert api.asked == 4
    with pytest.raises(UnavailableError, match=r"busy.*asked 6 times"):
        with_retries(lambda: Counting(failures=99).instant("q", 1.0) or [], wait_none())


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


class FailsLater:
    """A real server's answers until it has been asked `good` times; then 503 for ever."""

    def __init__(self, behind: QueryApi, good: int) -> None:
        self.behind, self.good, self.asked = behind, good, 0
        self.lock = threading.Lock()

    def _count(self) -> None:
        with self.lock:
            self.asked += 1
            if self.asked > self.good:
                raise UnavailableError("server: answered 503 (down)")

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        self._count()
        return self.behind.instant(query, at_seconds)

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        self._count()
        return self.behind.range(query, start_seconds, end_seconds, step_seconds)


def test_a_server_that_goes_away_leaves_what_was_fetched(fleet_url: str, tmp_path: Path) -> None:
    request = Request("fleet", float(samples.START), samples.START + 3600.0, 60.0, Labels())

    def impatient(*args: object) -> None:
        fetch(*args, wait_between=wait_none())  # type: ignore[arg-type]

    with PrometheusApi(Access(fleet_url)) as api:
        with pytest.raises(UnavailableError, match=r"down.*of \d+ parts are kept in .*--resume"):
            ingest_prometheus(
                FailsLater(api, 24),
                request,
                tmp_path,
                resume=False,
                parallel=2,
                progress=quiet,
                fetch_parts=impatient,
            )
        kept = len(list((tmp_path / ".ingest" / "parts").glob("*.parquet")))
        assert kept >= 5
        whole = tmp_path / "whole"
        ingest_prometheus(api, request, whole, resume=False, parallel=4, progress=quiet)
        ingest_prometheus(api, request, tmp_path, resume=True, parallel=4, progress=quiet)
    pd.testing.assert_frame_equal(read_telemetry(whole).load, read_telemetry(tmp_path).load)


def test_parts_are_whole_or_absent_and_damage_is_told(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    request = Request("s", 0.0, 600.0, 60.0, Labels())
    cache.begin(request, Probe(75.0, 15.0, 1))
    chunk = Chunk(60.0, 600.0)
    rows = [
        Row({"a": "1"}, np.arange(3.0), np.ones(3)),
        Row({"a": "2"}, np.arange(2.0), np.zeros(2)),
    ]
    cache.write("x", chunk, rows)
    back = cache.read("x", chunk)
    assert [r.labels for r in back] == [{"a": "1"}, {"a": "2"}]
    np.testing.assert_array_equal(back[1].values, [0.0, 0.0])
    cache.path("y", chunk).with_suffix(".parquet.draft").write_bytes(
        b"half"
    )  # killed while writing
    assert not cache.path("y", chunk).exists()
    cache.path("x", chunk).write_bytes(b"PAR1 and nothing more")
    with pytest.raises(IngestError, match=r"damaged.*--resume"):
        cache.read("x", chunk)
    manifest = tmp_path / ".ingest" / "manifest.json"
    held = json.loads(manifest.read_text())
    assert cache.open(request, resume=True) == Probe(75.0, 15.0, 1)
    manifest.write_text(json.dumps({**held, "version": 1, "probe": {"native": False}}))
    with pytest.raises(IngestError, match="was made with another version"):
        cache.open(request, resume=True)
    manifest.write_text("{")
    with pytest.raises(IngestError, match="not a manifest"):
        cache.open(request, resume=True)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--url", "nonsense", "--from", "1d"], 1, "is no address"),
        (["--url", "http://127.0.0.1:1", "--from", "1d"], 1, "cannot connect"),
        (["--url", "http://127.0.0.1:1", "--from", "yesterday"], 2, "allowed: now, 14d (ago)"),
        (["--url", "http://127.0.0.1:1", "--from", "2026-01-01"], 2, "with a zone"),
        (
            ["--url", "http://127.0.0.1:1", "--from", "1d", "--step", "1"],
            2,
            "allowed: a number and",
        ),
    ],
)
def test_the_command_says_it_in_one_line(
    options: list[str], status: int, says: str, tmp_path: Path
) -> None:
    done = run("ingest", "prometheus", *options, "--out", tmp_path)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_config_that_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "labels.yaml"
    config.write_text(json.dumps({"labels": {"service": "not a label!"}}))
    done = run("lint", "--url", "http://x", "--config", config)
    assert done.returncode == 2
    assert "labels.service is 'not a label!'" in done.stderr
