"""A key changes with what goes into a run and with nothing else; a broken file counts as absent."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import measures, series

from autoscaler.whatif.cache import RunCache, code_digest, digest, file_digest
from autoscaler.whatif.observed import LognormalStartup
from autoscaler.whatif.rivals import Setting
from autoscaler.whatif.run import Driven


def driven() -> Driven:
    return Driven({"prod/code": measures(), "prod/chat": measures()}, 7, series(1.0, hours=0.2))


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    kept = RunCache(tmp_path / "new")
    assert kept.get("a") is None
    kept.put("a", driven())
    back = kept.get("a")
    assert back is not None
    assert back.services == driven().services
    assert back.max_replicas == 7
    pd.testing.assert_frame_equal(back.series, driven().series)


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_broken_file_counts_as_absent(tmp_path: Path, suffix: str) -> None:
    kept = RunCache(tmp_path)
    kept.put("a", driven())
    (tmp_path / f"a.{suffix}").write_bytes(b"{")
    assert kept.get("a") is None


def test_without_a_folder_nothing_is_kept() -> None:
    kept = RunCache(None)
    kept.put("a", driven())
    assert kept.get("a") is None


def test_models_are_brought_back(tmp_path: Path) -> None:
    kept, work = RunCache(tmp_path / "kept"), tmp_path / "work"
    for name in ("telemetry", "models"):
        (work / name).mkdir(parents=True)
        (work / name / "file").write_text(name)
    assert not kept.learned("k", tmp_path / "other")
    kept.keep_learned("k", work)
    assert kept.learned("k", tmp_path / "other")
    assert (tmp_path / "other" / "models" / "file").read_text() == "models"
    assert file_digest(work) == file_digest(tmp_path / "other")


def test_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    kept = RunCache(tmp_path)
    for n, key in enumerate("abc"):
        (tmp_path / f"{key}.json").write_bytes(bytes(100))
        os.utime(tmp_path / f"{key}.json", (n, n))
    monkeypatch.setattr("autoscaler.whatif.cache.KEPT_BYTES", 250)
    kept.prune()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json", "c.json"]


def test_a_digest_is_of_the_content() -> None:
    startup = LognormalStartup(60.0, 0.2)
    first = digest(Setting("hpa", 2.0), {"b": 1, "a": np.arange(3)}, startup)
    assert first == digest(Setting("hpa", 2.0), {"a": np.arange(3), "b": 1}, startup)
    for changed in (
        digest(Setting("hpa", 2.5), {"b": 1, "a": np.arange(3)}, startup),
        digest(Setting("hpa", 2.0), {"b": 1, "a": np.arange(4)}, startup),
        digest(Setting("hpa", 2.0), {"b": 1, "a": np.arange(3.0)}, startup),
        digest(Setting("hpa", 2.0), {"b": 1.0, "a": np.arange(3)}, startup),
        digest(Setting("hpa", 2.0), {"b": 1, "a": np.arange(3)}, LognormalStartup(61.0, 0.2)),
        digest(Setting("kpa", 2.0), {"b": 1, "a": np.arange(3)}, startup),
    ):
        assert changed != first
    with pytest.raises(TypeError, match="no content that is known"):
        digest(object())
    assert code_digest() == code_digest()


def test_a_digest_tells_methods_of_different_objects_apart() -> None:
    @dataclasses.dataclass
    class Facts:
        seconds: float

        def sample(self) -> float:
            return self.seconds

    assert digest(Facts(1.0).sample) == digest(Facts(1.0).sample)
    assert digest(Facts(1.0).sample) != digest(Facts(2.0).sample)
