"""A generation appears whole or not at all, whatever the disk does."""

import json
import resource
from pathlib import Path

import pytest

from autoscaler.edge.artifacts import read_generation
from models.artifact import ArtifactError
from training.registry import KEEP_GENERATIONS, RegistryError, write_generation

FILES = {"load/model.txt": b"tree\n" * 10, "latency/latency.json": b"{}"}


def test_a_generation_comes_back_as_it_was_written(tmp_path: Path) -> None:
    name = write_generation(tmp_path, FILES, {"trained_until_seconds": 7.0}, None)
    generation = read_generation(tmp_path)
    assert generation.name == name
    assert generation.files == FILES
    assert generation.part("load") == {"model.txt": FILES["load/model.txt"]}
    assert generation.summary["trained_until_seconds"] == 7.0


def test_the_same_models_have_the_same_name(tmp_path: Path) -> None:
    first = write_generation(tmp_path / "a", FILES, {}, None)
    assert write_generation(tmp_path / "b", dict(reversed(FILES.items())), {"x": 1}, None) == first
    other = {**FILES, "latency/latency.json": b"[]"}
    assert write_generation(tmp_path / "b", other, {}, first) != first


def test_a_full_disk_leaves_what_served(tmp_path: Path) -> None:
    old = write_generation(tmp_path, FILES, {}, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # any file beyond it: the disk is full
    try:
        with pytest.raises(RegistryError, match="the models that were there still serve"):
            write_generation(tmp_path, {**FILES, "load/model.txt": b"x" * 100_000}, {}, old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_generation(tmp_path).name == old
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_same_models_again_are_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_generation(tmp_path, FILES, {"try": 1}, None)
    assert write_generation(tmp_path, FILES, {"try": 2}, name) == name
    assert read_generation(tmp_path).summary["try"] == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    replace = Path.replace

    def fails_at_the_manifest(self: Path, target: Path) -> Path:
        if self.name == "manifest.json":
            raise OSError(5, "the disk is gone")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_at_the_manifest)
    with pytest.raises(RegistryError, match="still serve"):
        write_generation(tmp_path, FILES, {"try": 3}, name)
    assert read_generation(tmp_path).files == FILES


def test_old_generations_go_except_a_few(tmp_path: Path) -> None:
    previous = None
    for i in range(6):
        previous = write_generation(tmp_path, {**FILES, "load/n": bytes([i])}, {}, previous)
    assert len(list(tmp_path.glob("g-*"))) == KEEP_GENERATIONS
    assert read_generation(tmp_path).name == previous


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "format_version 2 is newer"),
        ({"generation": "../elsewhere"}, "allowed: the name of a folder beside it"),
        ({"format_version": None}, "no format_version"),
    ],
)
def test_a_strange_pointer_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    write_generation(tmp_path, FILES, {}, None)
    current = tmp_path / "current.json"
    current.write_text(json.dumps({**json.loads(current.read_text()), **change}))
    with pytest.raises(ArtifactError, match=words):
        read_generation(tmp_path)


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    name = write_generation(tmp_path, FILES, {}, None)
    manifest = tmp_path / name / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["../../secret"] = {"sha256": "0", "bytes": 1}
    manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="names inside the folder"):
        read_generation(tmp_path)
