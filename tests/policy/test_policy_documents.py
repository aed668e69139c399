"""YAML itself: scalars as kubectl reads them, duplicate keys, bounds."""

import importlib.util
import sys
from types import ModuleType

import pytest
import yaml

from autoscaler.policy import PolicyError, documents
from autoscaler.policy.documents import MAX_DEPTH, read_documents


def one(text: str) -> object:
    ((_, data),) = read_documents("f.yaml", text)
    return data


def message(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        list(read_documents("f.yaml", text))
    assert str(caught.value).isprintable()
    return str(caught.value)


SCALARS = [
    ("10:30", "10:30"),  # YAML 1.1 would read 630
    ("2026-11-27", "2026-11-27"),
    ("2026-11-27T06:00:00Z", "2026-11-27T06:00:00Z"),
    ("1e3", 1000.0),
    ("1.5e-3", 0.0015),
    (".5", 0.5),
    ("5", 5),
    ("-5", -5),
    ("0x10", 16),
    ("1_000", 1000),
    ("v1", "v1"),
    ("1.2.3", "1.2.3"),
    ("=", "="),
    ("true", True),
    ("off", False),
    ("~", None),
    ('"5"', "5"),
    ("", None),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[t or "empty" for t, _ in SCALARS])
def test_scalars(text: str, value: object) -> None:
    got = one(f"a: {text}")
    assert got == {"a": value}
    assert isinstance(got, dict)
    assert type(got["a"]) is type(value)


def test_documents_are_numbered_and_empty_ones_skipped() -> None:
    text = "# a comment\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n"
    assert list(read_documents("f", text)) == [(1, {"a": 1}), (4, {"b": 2})]
    assert list(read_documents("f", "")) == []
    assert list(read_documents("f", "# only a comment\n")) == []


def test_aliases_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\ncopy: *b\nmore: {<<: *b, y: 3}\n"
    assert one(text) == {
        "base": {"x": 1, "y": 2},
        "copy": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
    }


LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
# values of a0, a1, ...: 2, 21, 211, 2111, 21111, 211111: a5, in line 6, is the first beyond 200,000
BAD = [
    (
        "a: 1\nb: 2\na: 3",
        "f.yaml: document 1: line 3: key 'a' appears twice; allowed: once in a mapping",
    ),
    (
        "x: 1\n---\ns: {a: 1, 'a': 2}",
        "f.yaml: document 2: line 3: key 'a' appears twice; allowed: once",
    ),
    ("1: a\n'1': b", "f.yaml: document 1: line 2: key '1' appears twice"),
    ("[a]: 1", "f.yaml: document 1: line 1: a key is a collection or an alias; allowed: text"),
    ("a: &k x\n*k : 1", "f.yaml: document 1: line 2: a key is a collection or an alias"),
    ("a: &a [1, *a]", "f.yaml: document 1: line 1: alias *a stands inside its own anchor"),
    ("a: *b", "f.yaml: line 1, column 4: found undefined alias"),
    ("a: [1\nb: 2", "f.yaml: line 2, column 2: did not find expected ',' or ']'"),
    (
        "a: !!python/object:os.system x",
        "f.yaml: line 1, column 4: could not determine a constructor",
    ),
    ("a: !!timestamp 2026-01-01", "f.yaml: line 1, column 4: could not determine a constructor"),
    ("a: !!binary aaaa", "f.yaml: line 1, column 4: could not determine a constructor"),
    ("a: \x01", "f.yaml: "),
    ("a: " + "9" * 5000, "f.yaml: a value cannot be read: "),
    ("\ud800", "f.yaml: a character is no Unicode text; allowed: UTF-8"),
    ("[" * 100_000, "f.yaml: document 1: line 1: nested deeper than 32"),
    ("- " * 100_000, "f.yaml: document 1: line 1: nested deeper than 32"),
    (LAUGHS, "f.yaml: document 1: line 6: more than 200000 values with aliases expanded"),
]


@pytest.mark.parametrize(("text", "start"), BAD, ids=[s[8:60] for _, s in BAD])
def test_what_is_refused(text: str, start: str) -> None:
    assert message(text).startswith(start)


def test_merge_keys_cannot_blow_up_either() -> None:
    text = LAUGHS.replace("[x]", "{x: 1}").replace("[", "{<<: [").replace("]", "]}")
    assert "with aliases expanded" in message(text)


def test_depth_is_bounded_exactly() -> None:
    one("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert "nested deeper than 32" in message("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_anchors_end_with_their_document() -> None:
    assert "undefined alias" in message("a: &x 1\n---\nb: *x\n")


@pytest.fixture
def without_libyaml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.delattr(yaml, "CSafeLoader")
    spec = importlib.util.spec_from_file_location("documents_without_libyaml", documents.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_without_libyaml_the_same_is_read_and_refused(without_libyaml: ModuleType) -> None:
    assert without_libyaml._Base is yaml.SafeLoader
    for text, value in SCALARS:
        assert list(without_libyaml.read_documents("f", f"a: {text}")) == [(1, {"a": value})]
    for text, _ in BAD:
        with pytest.raises(PolicyError):
            list(without_libyaml.read_documents("f", text))
