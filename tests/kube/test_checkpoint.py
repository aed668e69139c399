import dataclasses
import gzip
import hashlib
import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from apidouble import ApiDouble
from apiserver import ApiServer
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.outcome import BudgetHour, Sample, ServiceState, State
from autoscaler.edge.codec import decoder, encoder
from autoscaler.edge.kube import checkpoint as checkpoint_module
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeNotFound, KubeUnavailable
from autoscaler.edge.kube.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    dump,
    load,
    parse,
    save,
)

NUMBERS = st.floats(width=64)  # NaN and both infinities included
COUNTS = st.integers(-(2**53), 2**53)
NAMES = st.text(max_size=12)
DESIRED = st.dictionaries(NAMES, COUNTS, max_size=3)
WINDOWS = st.dictionaries(
    NAMES, st.lists(st.tuples(NUMBERS, COUNTS), max_size=3).map(tuple), max_size=3
)
SERVICES = st.builds(
    ServiceState,
    desired=DESIRED,
    last_telemetry_seconds=NUMBERS,
    samples=st.lists(st.builds(Sample, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=3).map(tuple),
    changes=st.lists(st.tuples(NUMBERS, DESIRED), max_size=3).map(tuple),
    holds=WINDOWS,
    rises=WINDOWS,
    budget=st.lists(st.builds(BudgetHour, COUNTS, NUMBERS, NUMBERS), max_size=3).map(tuple),
)
ROWS = st.tuples(NAMES, NAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
CHECKPOINTS = st.builds(
    Checkpoint,
    state=st.builds(State, st.dictionaries(NAMES, SERVICES, max_size=3)),
    authority=st.dictionaries(NAMES, NAMES, max_size=3),
    startups=st.lists(ROWS, max_size=3).map(tuple),
    written_seconds=NUMBERS,
)
SAMPLE = Checkpoint(
    State(
        {
            "prod/chat": ServiceState(
                desired={"h100": 3},
                last_telemetry_seconds=1.8e9,
                samples=(Sample(1.8e9, 60.0, 41.7, math.nan),),
                changes=((-math.inf, {"h100": 2}), (1.8e9, {"h100": 3})),
                holds={"h100": ((1.8e9, 3),)},
                budget=(BudgetHour(500_000, 1e6, 12.5),),
            )
        }
    ),
    {"prod/chat": "Scale"},
    (("prod/chat", "h100", 1.8e9, 1.8e9 + 2.0, math.nan, 1.8e9 + 240.0),),
    1.8e9,
)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are equal; repr, because NaN differs from itself (and 1 from 1.0)."""
    return repr(one) == repr(other)


@given(CHECKPOINTS)
def test_what_is_read_is_what_was_written(checkpoint: Checkpoint) -> None:
    data = dump(checkpoint)
    again = parse(data)
    assert same(again, checkpoint)
    assert dump(again) == data


@given(CHECKPOINTS.filter(lambda c: "nan" not in repr(c)))
def test_without_nan_it_is_also_equal(checkpoint: Checkpoint) -> None:
    assert parse(dump(checkpoint)) == checkpoint


def test_numpys_numbers_are_numbers() -> None:
    state = ServiceState(desired={"v": np.int64(3)}, last_telemetry_seconds=np.float64(1.5))
    again = parse(dump(Checkpoint(State({"s": state}), {}, (), 0.0)))
    assert again.state.services["s"] == ServiceState(desired={"v": 3}, last_telemetry_seconds=1.5)
    assert type(again.state.services["s"].desired["v"]) is int


def test_the_document_is_plain_json() -> None:
    document = orjson.loads(gzip.decompress(dump(SAMPLE)))
    service = document["checkpoint"]["state"]["services"]["prod/chat"]
    assert document["format"] == FORMAT
    assert service["changes"] == [["-inf", {"h100": 2}], [1.8e9, {"h100": 3}]]
    assert service["samples"][0]["waiting"] == "nan"
    (hour,) = service["budget"]
    foretold = {"foretold": "nan", "aimed": "nan", "promised": "nan"}
    assert hour == {"hour": 500_000, "finished": 1e6, "missed": 12.5, **foretold}


@pytest.mark.parametrize(
    "state",
    [
        ServiceState(desired={"v": 1.5}),  # type: ignore[dict-item]
        ServiceState(desired={1: 1}),  # type: ignore[dict-item]
        ServiceState(last_telemetry_seconds="soon"),  # type: ignore[arg-type]
        ServiceState(changes=((1.0, {}, 3),)),  # type: ignore[arg-type]
        ServiceState(samples=(1.0,)),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_state_is_not_written(state: ServiceState) -> None:
    with pytest.raises(CheckpointError, match=r"^checkpoint: not what it should be: "):
        dump(Checkpoint(State({"s": state}), {}, (), 0.0))


def zipped(document: Any) -> bytes:
    return gzip.compress(orjson.dumps(document), mtime=0)


def with_service(**changed: Any) -> bytes:
    document = orjson.loads(gzip.decompress(dump(SAMPLE)))
    document["checkpoint"]["state"]["services"]["prod/chat"].update(changed)
    return zipped(document)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "its end is missing"),
        (b"plain", "not gzip"),
        (dump(SAMPLE)[:-5], "its end is missing"),
        (gzip.compress(b"{", mtime=0), "no JSON"),
        (gzip.compress(b"[" * 5000, mtime=0), "no JSON"),
        (zipped([]), "of another format; allowed: foreserve.dev/checkpoint/1"),
        (zipped({"format": "foreserve.dev/checkpoint/2"}), "of another format"),
        (zipped({"format": FORMAT}), "None is no object"),
        (zipped({"format": FORMAT, "checkpoint": {}}), "Checkpoint without authority, startups"),
        (with_service(extra=1), "ServiceState with unknown extra"),
        (with_service(desired={"v": 1.5}), r"1\.5 is no whole number"),
        (with_service(desired={"v": True}), "True is no whole number"),
        (with_service(desired=[]), r"\[\] is no object"),
        (with_service(last_telemetry_seconds=None), "None is no number"),
        (with_service(last_telemetry_seconds="NaN"), "'NaN' is no number"),
        (with_service(changes=[[1.0]]), "not what it should be"),
        (with_service(samples={}), "{} is no list"),
        (with_service(samples=[{"waiting": 1.0}]), "Sample without arrival_rate_rps, end_seconds"),
    ],
)
def test_anything_wrong_is_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as e:
        parse(data)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 200


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_never_gets_through(where: int, flip: int) -> None:
    data = bytearray(dump(SAMPLE))
    data[where % len(data)] ^= flip
    try:
        again = parse(bytes(data))
    except CheckpointError:
        return
    assert same(again, SAMPLE)  # a byte of gzip's header that means nothing


def test_a_bomb_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "MAX_PLAIN_BYTES", 1 << 20)
    with pytest.raises(CheckpointError, match="more than 1 MiB of JSON"):
        parse(gzip.compress(b" " * (50 << 20)))


def test_an_older_file_lacks_what_has_a_default() -> None:
    document = orjson.loads(gzip.decompress(dump(SAMPLE)))
    del document["checkpoint"]["state"]["services"]["prod/chat"]["budget"]
    again = parse(zipped(document)).state.services["prod/chat"]
    assert again == dataclasses.replace(again, budget=())
    assert again.desired == {"h100": 3}


def test_a_type_without_json_is_named() -> None:
    for kind in (bytes, dict[str, int], Mapping[int, int], list[int]):
        with pytest.raises(TypeError, match="no JSON for"):
            encoder(kind)
        with pytest.raises(TypeError, match="no JSON for"):
            decoder(kind)


# -- in ConfigMaps --------------------------------------------------------------------------------------


@pytest.fixture
def api(kube: ApiServer) -> Iterator[KubeApi]:
    api = KubeApi(kube.admin())
    yield api
    api.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """About eight parts for what is otherwise one."""
    monkeypatch.setattr(checkpoint_module, "PART_BYTES", 700)


def noisy(seed: int, services: int = 40) -> Checkpoint:
    """A checkpoint that gzip cannot shrink much: several KiB."""
    rng = np.random.default_rng(seed)
    states = {
        f"ns/s{i}": ServiceState(
            samples=(Sample(*rng.random(4).tolist()), Sample(*rng.random(4).tolist()))
        )
        for i in range(services)
    }
    return Checkpoint(State(states), {}, (), float(seed))


def names(api: KubeApi, namespace: str) -> list[str]:
    found = api.list(f"/api/v1/namespaces/{namespace}/configmaps")
    return sorted(m["metadata"]["name"] for m in found)


def test_never_written_is_none(api: KubeApi, namespace: str) -> None:
    assert load(api, namespace, "memory") is None


def test_a_small_one_is_one_config_map(api: KubeApi, namespace: str) -> None:
    for seconds in (1.0, 2.0, 3.0):
        save(api, namespace, "memory", dataclasses.replace(SAMPLE, written_seconds=seconds))
        found = load(api, namespace, "memory")
        assert found is not None
        assert same(found, dataclasses.replace(SAMPLE, written_seconds=seconds))
    assert names(api, namespace) == ["memory"]


@pytest.mark.usefixtures("small_parts")
def test_a_large_one_is_several_and_leaves_nothing_behind(api: KubeApi, namespace: str) -> None:
    for seed, services in ((1, 40), (2, 60), (3, 20), (4, 40)):
        checkpoint = noisy(seed, services)
        save(api, namespace, "memory", checkpoint)
        found = load(api, namespace, "memory")
        assert found is not None
        assert same(found, checkpoint)
        count = math.ceil(len(dump(checkpoint)) / 700)
        assert count > 3
        slot = "ab"[(seed - 1) % 2]
        expected = ["memory", *sorted(f"memory-{slot}-{i}" for i in range(1, count))]
        assert names(api, namespace) == expected
    save(api, namespace, "memory", SAMPLE)
    assert names(api, namespace) == ["memory"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("requests", range(1, 9))
def test_a_writer_that_dies_anywhere_leaves_the_old_one(double: ApiDouble, requests: int) -> None:
    api = KubeApi(double.admin())
    api.create("/api/v1/namespaces", {"metadata": {"name": "ns"}})
    save(api, "ns", "memory", noisy(1))
    left = iter(range(requests))
    call = api._call

    def dies(method: str, *rest: Any, **more: Any) -> dict[str, Any]:
        if method != "GET" and next(left, None) is None:
            raise KubeUnavailable("dead")
        return call(method, *rest, **more)

    api._call = dies  # type: ignore[method-assign]
    with pytest.raises(KubeUnavailable, match="dead"):
        save(api, "ns", "memory", noisy(2, 30))
    del api._call
    found = load(api, "ns", "memory")
    assert found is not None
    assert found.written_seconds in {1.0, 2.0}
    assert same(found, noisy(1) if found.written_seconds == 1.0 else noisy(2, 30))
    save(api, "ns", "memory", noisy(3))  # its successor is not disturbed by the rest
    found = load(api, "ns", "memory")
    assert found is not None
    assert same(found, noisy(3))
    api.close()


@pytest.mark.usefixtures("small_parts")
def test_a_reader_overtaken_by_writers_reads_the_newest(api: KubeApi, namespace: str) -> None:
    save(api, namespace, "memory", noisy(1))
    get = api.get
    writes = iter((2, 3))

    def overtaken(path: str, *rest: Any) -> dict[str, Any]:
        answer = get(path, *rest)
        if path.endswith("/memory") and (seed := next(writes, None)):
            api.get = get  # type: ignore[method-assign]
            save(api, namespace, "memory", noisy(seed))
            save(api, namespace, "memory", noisy(seed + 10))  # the reader's slot is another's now
            api.get = overtaken  # type: ignore[method-assign]
        return answer

    api.get = overtaken  # type: ignore[method-assign]
    found = load(api, namespace, "memory")
    assert found is not None
    assert same(found, noisy(13))


def test_the_slower_of_two_writers_loses(double: ApiDouble) -> None:
    api = KubeApi(double.admin())
    api.create("/api/v1/namespaces", {"metadata": {"name": "ns"}})
    save(api, "ns", "memory", SAMPLE)
    double.conflict_storm("/configmaps/memory", 1)
    with pytest.raises(KubeConflict):
        save(api, "ns", "memory", dataclasses.replace(SAMPLE, written_seconds=2.0))
    found = load(api, "ns", "memory")
    assert found is not None
    assert same(found, SAMPLE)
    api.close()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("damage", ["missing", "other", "base64", "head", "count", "foreign"])
def test_damage_is_reported(api: KubeApi, namespace: str, damage: str) -> None:
    save(api, namespace, "memory", noisy(1))
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    part = b64encode(b"other").decode()
    if damage == "missing":
        api.delete(f"{maps}/memory-a-2")
    elif damage == "other":
        api.patch(f"{maps}/memory-a-2", {"binaryData": {"part": part}})
    elif damage == "base64":
        api.patch(f"{maps}/memory-a-2", {"binaryData": None})
    elif damage == "head":
        api.patch(f"{maps}/memory", {"data": {"sha256": "0" * 64}})
    elif damage == "count":
        api.patch(f"{maps}/memory", {"data": {"parts": "999999999"}})
    else:
        api.patch(f"{maps}/memory", {"data": None, "binaryData": None})
    with pytest.raises(
        CheckpointError, match=r"^ConfigMap .*memory: (its parts are|is no checkpoint)"
    ):
        load(api, namespace, "memory")
    save(api, namespace, "memory", noisy(2))  # and the next one is written all the same
    found = load(api, namespace, "memory")
    assert found is not None
    assert same(found, noisy(2))


def test_what_is_too_large_is_not_written(
    api: KubeApi, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "PART_BYTES", 64)
    with pytest.raises(CheckpointError, match="KiB compressed; allowed: 1 KiB"):
        save(api, namespace, "memory", noisy(1))
    with pytest.raises(KubeNotFound):
        api.get(f"/api/v1/namespaces/{namespace}/configmaps/memory")


def test_real_sizes_are_accepted(api: KubeApi, namespace: str) -> None:
    """Parts of 700 KiB: 15,000 services' noise is about 1.5 MiB compressed."""
    checkpoint = noisy(1, 15_000)
    save(api, namespace, "memory", checkpoint)
    assert len(names(api, namespace)) >= 2
    found = load(api, namespace, "memory")
    assert found == checkpoint
    head = api.get(f"/api/v1/namespaces/{namespace}/configmaps/memory")
    assert len(b64decode(head["binaryData"]["part"])) == checkpoint_module.PART_BYTES
    assert head["data"]["sha256"] == hashlib.sha256(dump(checkpoint)).hexdigest()
