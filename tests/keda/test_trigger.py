"""Metadata of a trigger, whatever they hold."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.edge.keda.trigger import ALLOWED_KEYS, Trigger, trigger_of


def test_the_namespace_is_the_scaled_objects_unless_named() -> None:
    assert trigger_of("prod", {"policy": "chat"}) == Trigger("prod", "chat", None)
    assert trigger_of("prod", {"policy": "lm/chat"}).service == "lm/chat"


def test_overrides_and_kedas_own_keys() -> None:
    metadata = {
        "scalerAddress": "x:1",
        "enableTLS": "true",
        "unsafeSsl": "false",
        "policy": "chat",
        "variant": "h100",
        "maxAgeSeconds": "90.5",
        "fallbackReplicas": "4",
    }
    assert trigger_of("prod", metadata) == Trigger("prod", "chat", "h100", 90.5, 4)


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e3", " 5", "5 ", "0x5", "-1", "86401", "٥"])
def test_numbers_are_plain_numbers(text: str) -> None:
    with pytest.raises(NoAnswerError, match=r"metadata maxAgeSeconds: .* from 1 to 86400"):
        trigger_of("prod", {"policy": "chat", "maxAgeSeconds": text})


texts = st.text(max_size=100)


@given(
    st.text(max_size=20),
    st.dictionaries(st.sampled_from(sorted(ALLOWED_KEYS)) | texts, texts, max_size=6),
)
def test_any_metadata_are_a_trigger_or_one_sentence(
    namespace: str, metadata: dict[str, str]
) -> None:
    try:
        trigger = trigger_of(namespace, metadata)
    except NoAnswerError as error:
        refusal = error
    else:
        assert metadata.keys() <= ALLOWED_KEYS
        assert re.fullmatch(r"foreserve-[a-z0-9_-]+", trigger.metric_name)
        return
    assert refusal.kind == "bad_metadata"
    assert str(refusal).startswith("trigger metadata ")
    assert "allowed: " in str(refusal)
    assert len(str(refusal)) < 400
