"""Which service and variant a source belongs to: two templates, and rules for what they cannot say.

A template is text with {alternatives}: attribute names divided by `|`, tried in order, the last may be
`=text`. A rule names attributes with shell patterns and gives service and variant (templates
again); the first rule that fits holds, before the templates.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from models.frames import FrameError

SERVICE_TEMPLATE = (
    "{k8s.namespace.name|service.namespace|namespace|=default}"
    "/{service.name|model_name|gen_ai.request.model|k8s.deployment.name}"
)
VARIANT_TEMPLATE = "{variant|k8s.deployment.name|k8s.statefulset.name|=default}"
_FIELD = re.compile(r"\{([^{}]*)\}")


class IdentityError(FrameError):
    """A template or rule that cannot be used; the message says where, what and what is allowed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Sources whose attributes fit every pattern of `match` are this service and variant."""

    match: Mapping[str, str]
    service: str
    variant: str


@dataclass(frozen=True, slots=True)
class Identity:
    """How sources become services and variants."""

    service: str = SERVICE_TEMPLATE
    variant: str = VARIANT_TEMPLATE
    rules: tuple[Rule, ...] = ()

    def of(self, attributes: Mapping[str, str]) -> tuple[str, str] | None:
        """Return (service, variant) of a source; None if an attribute that is needed is missing."""
        service, variant = self.service, self.variant
        for rule in self.rules:
            if all(fnmatchcase(attributes.get(k, ""), p) for k, p in rule.match.items()):
                service, variant = rule.service, rule.variant
                break
        names = (_fill(service, attributes), _fill(variant, attributes))
        return None if names[0] is None or names[1] is None else (names[0], names[1])


def check_template(text: str, where: str) -> str:
    """Return the template, or raise IdentityError if its braces or alternatives make no sense."""
    if not text or _FIELD.sub("", text).count("{") or _FIELD.sub("", text).count("}"):
        raise IdentityError(f"{where}: {text!r}; allowed: text with {{attribute|attribute|=text}}")
    for field in _FIELD.findall(text):
        options = field.split("|")
        if not all(options) or any(o.startswith("=") for o in options[:-1]):
            raise IdentityError(f"{where}: {{{field}}}; allowed: names divided by |, =text last")
    return text


def parse_rules(document: object, where: str) -> tuple[Rule, ...]:
    """Read rules from a parsed YAML list of {match: {attribute: pattern}, service, variant}."""
    if not isinstance(document, list):
        raise IdentityError(f"{where}: {type(document).__name__}; allowed: a list of rules")
    return tuple(_rule(item, f"{where}: rule {i}") for i, item in enumerate(document))


def attribute_names(identity: Identity) -> set[str]:
    """Return every attribute that the templates and rules look at."""
    texts = [identity.service, identity.variant]
    for rule in identity.rules:
        texts += [rule.service, rule.variant]
    found = {o for t in texts for f in _FIELD.findall(t) for o in f.split("|")}
    return {o for o in found if not o.startswith("=")} | {
        k for r in identity.rules for k in r.match
    }


def _rule(item: object, where: str) -> Rule:
    allowed = "match (attribute: pattern), service, variant"
    if not isinstance(item, dict) or set(item) != {"match", "service", "variant"}:
        raise IdentityError(f"{where}: {item!r}; allowed: {allowed}")
    match = item["match"]
    if not isinstance(match, dict) or not match:
        raise IdentityError(f"{where}: match is {match!r}; allowed: attribute: pattern")
    if not all(isinstance(x, str) for pair in match.items() for x in pair):
        raise IdentityError(f"{where}: match is {match!r}; allowed: text for text")
    names = {}
    for key in ("service", "variant"):
        if not isinstance(item[key], str):
            raise IdentityError(f"{where}: {key} is {item[key]!r}; allowed: text")
        names[key] = check_template(item[key], f"{where}: {key}")
    return Rule(dict(match), names["service"], names["variant"])


def _fill(template: str, attributes: Mapping[str, str]) -> str | None:
    parts = _FIELD.split(template)  # text, field, text, field, ..., text
    out = []
    for i, part in enumerate(parts):
        value = part if i % 2 == 0 else _first(part, attributes)
        if value is None:
            return None
        out.append(value)
    return "".join(out)


def _first(field: str, attributes: Mapping[str, str]) -> str | None:
    for option in field.split("|"):
        if option.startswith("="):
            return option[1:]
        if attributes.get(option):
            return attributes[option]
    return None
