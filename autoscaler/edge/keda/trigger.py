"""The metadata of a trigger: which policy and variant a ScaledObject asks about. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.core.hpa import TargetType
from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.policy.schema import DNS_LABEL_PATTERN, DNS_NAME_PATTERN, MAX_REPLICAS, NAME_PATTERN

OWN_KEYS = ("policy", "variant", "maxAgeSeconds", "fallbackReplicas", "tolerance", "metricType")
KEDA_KEYS = ("scalerAddress", "enableTLS", "unsafeSsl")  # KEDA's own, sent along with ours
ALLOWED_KEYS = frozenset((*OWN_KEYS, *KEDA_KEYS))
MAX_AGE_LIMIT_SECONDS = 86_400.0
SHOWN_CHARACTERS = 80  # of a value that is refused
UNFIT = re.compile(r"[^a-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Trigger:
    """What one trigger asks about; None where the scaler's or the policy's own setting holds.

    `tolerance` and `target_type` are of the HPA, for where nobody of us may read it.
    """

    namespace: str
    policy: str
    variant: str | None
    max_age_seconds: float | None = None
    fallback_replicas: int | None = None
    tolerance: float | None = None
    target_type: TargetType | None = None

    @property
    def service(self) -> str:
        """The service's identity, namespace/name."""
        return f"{self.namespace}/{self.policy}"

    def limit_seconds(self, default_seconds: float) -> float:
        """Return the age from which a decision is too old for this trigger."""
        return default_seconds if self.max_age_seconds is None else self.max_age_seconds

    @property
    def metric_name(self) -> str:
        """The metric's name in the HPA: it becomes part of a path, so few characters are fit."""
        parts = ("foreserve", self.policy, *((self.variant,) if self.variant else ()))
        return UNFIT.sub("-", "-".join(parts).lower())


def trigger_of(namespace: str, metadata: Mapping[str, str]) -> Trigger:
    """Return what `scalerMetadata` of a ScaledObject in `namespace` says; NoAnswerError names the key."""
    for key in metadata:
        if key not in ALLOWED_KEYS:
            raise _bad(key, "no such key", ", ".join(OWN_KEYS))
    policy = metadata.get("policy", "")
    named, slash, name = policy.rpartition("/")
    place = named if slash else namespace
    fits = _fits(DNS_LABEL_PATTERN, place, 63) and _fits(DNS_NAME_PATTERN, name, 253)
    if not fits:
        said = _shown(policy) if "policy" in metadata else "missing"
        raise _bad("policy", said, "the name of a ScalingPolicy, or namespace/name")
    variant = metadata.get("variant")
    if variant is not None and not _fits(NAME_PATTERN, variant, 63):
        raise _bad("variant", _shown(variant), "the name of a variant of the policy")
    age = _number(metadata, "maxAgeSeconds", 1.0, MAX_AGE_LIMIT_SECONDS)
    fallback = _number(metadata, "fallbackReplicas", 0.0, MAX_REPLICAS, whole=True)
    return Trigger(
        place,
        name,
        variant,
        age,
        None if fallback is None else int(fallback),
        _number(metadata, "tolerance", 0.0, 1.0),
        _target_type(metadata),
    )


def _target_type(metadata: Mapping[str, str]) -> TargetType | None:
    text = metadata.get("metricType")
    if text is None:
        return None
    try:
        return TargetType(text)
    except ValueError:
        raise _bad("metricType", _shown(text), ", ".join(TargetType)) from None


def _number(
    metadata: Mapping[str, str], key: str, least: float, most: float, *, whole: bool = False
) -> float | None:
    text = metadata.get(key)
    if text is None:
        return None
    pattern = r"\d{1,6}" if whole else r"\d{1,6}(\.\d{1,6})?"
    value = float(text) if re.fullmatch(pattern, text, re.ASCII) else -1.0
    if not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise _bad(key, _shown(text), f"{kind} from {least:g} to {most:.0f}")
    return value


def _fits(pattern: str, text: str, most_characters: int) -> bool:
    return len(text) <= most_characters and re.fullmatch(pattern, text) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def _bad(key: str, said: str, allowed: str) -> NoAnswerError:
    key = key if key in ALLOWED_KEYS else _shown(key)
    return NoAnswerError("bad_metadata", f"trigger metadata {key}: {said}; allowed: {allowed}")
