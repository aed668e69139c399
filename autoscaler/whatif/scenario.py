"""SCENARIO.yaml: what `foreserve whatif` compares, checked field by field before anything runs.

docs/whatif.md explains every field. pydantic stays at this door: the rest of the package sees one
validated, frozen value. A mistake becomes one sentence: file, field, value, what is allowed.
"""

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from autoscaler.core.types import SPOT_INTERRUPTIONS_PER_HOUR

AutoscalerName = Literal[
    "foreserve",
    "recorded",
    "static",
    "hpa",
    "hpa-queue",
    "keda",
    "kpa",
    "apa",
    "wva",
    "dynamo",
    "clairvoyant",
]
UNTUNED = ("foreserve", "recorded")  # nothing to look for with hindsight
WEEKS_TICK_SECONDS = 60.0  # instead of 15, from FLUID_HOURS on
FLUID_HOURS = 14 * 24.0  # judged: a fluid has no percentiles of its own, and months need it
BUNDLED = "bundled:"  # prefix of a trace that ships with the package
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# of pydantic's messages, those that do not name what is allowed
_ALLOWED = {
    "missing": "is required",
    "extra_forbidden": "is not a field",
    "model_type": "must hold fields (name: value)",
    "list_type": "must be a list",
}


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message names file, field, value and what is allowed."""


class _Strict(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=False
    )


class StartupSpec(_Strict):
    """Start-up times drawn from a lognormal distribution with this median."""

    median_seconds: Positive
    sigma: NotNegative = 0.25  # of log seconds


class RequestSpread(_Strict):
    """How single requests are drawn around a series of mean rates and mean lengths."""

    burst_cv: NotNegative | None = None  # of the rate within an interval; None: see docs/whatif.md
    burst_memory_seconds: Positive = 60.0
    isl_sigma: NotNegative = 0.6  # of log prompt tokens
    osl_sigma: NotNegative = 0.9


class AutoscalerSpec(_Strict):
    """One autoscaler of the comparison.

    setting: docs/whatif.md has each one's unit; `best` looks for the cheapest one that meets the
    attainment, with hindsight.
    """

    name: AutoscalerName
    setting: Annotated[float, Field(gt=0)] | Literal["best"] = "best"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:  # noqa: ANN401  (raw YAML)
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _some_are_not_tuned(self) -> Self:
        if self.name == "foreserve" and self.setting != "best":
            raise ValueError("foreserve has no setting here: its behaviour is in the policies")
        if self.name == "recorded" and self.setting != "best":
            raise ValueError("recorded has no setting: it is what telemetry says that ran")
        return self


class SpotSpec(_Strict):
    """Capacity that is taken back: what it costs beside on demand, how often, how long before it is told.

    The first two are what a variation's spotShare means; classes of the policies that are Spot say their own.
    """

    price_ratio: Annotated[float, Field(ge=0, le=1)] = 0.4
    interruptions_per_hour: NotNegative = SPOT_INTERRUPTIONS_PER_HOUR  # of one ready replica
    notice_seconds: NotNegative = 120.0  # AWS; Google and Azure give 30 s


class Change(_Strict):
    """What a variation does to the scenario. Each field is also the name of an axis."""

    name: str | None = None  # None: made of the fields
    ttft_seconds: Positive | None = None  # targets of every service
    tpot_seconds: Positive | None = None
    attainment: Annotated[float, Field(gt=0, lt=1)] | None = None
    traffic_factor: Positive | None = None
    startup_seconds: Positive | None = None  # median of a lognormal, sigma 0.25
    spot_share: Annotated[float, Field(ge=0, le=1)] | None = None  # of the replicas; see `spot`
    prices: dict[str, NotNegative] | None = None
    accelerators: dict[str, str] | None = None  # class -> class that takes its place
    profile: str | dict[str, str] | None = None  # of the engines that are there then
    quota: dict[str, Annotated[int, Field(ge=0)]] | None = None  # accelerators by class
    budget_usd_per_hour: NotNegative | None = None  # of each service

    @property
    def label(self) -> str:
        """The name that people read."""
        if self.name is not None:
            return self.name
        fields = self.model_dump(by_alias=True, exclude_none=True)
        return ", ".join(f"{name} {_plain_value(value)}" for name, value in fields.items())

    @property
    def learns_anew(self) -> bool:
        """Whether what models know of engines or starts is no longer true."""
        return any(v is not None for v in (self.startup_seconds, self.accelerators, self.profile))


def _plain_value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} → {v}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


class Scenario(_Strict):
    """One comparison. Paths are absolute once `load_scenario` has read them."""

    name: Annotated[str, Field(min_length=1)]
    telemetry: Path | None = None  # folder of PROTOCOL.md section 1
    trace: str | None = None  # file, or bundled:NAME
    service: str | None = None  # whose arrivals a trace holds
    mean_requests_per_second: Positive | None = None  # scale the trace to this mean
    spread: RequestSpread = RequestSpread()
    policies: Path
    models: Path | None = None  # None: trained on what precedes the judged hours
    profile: str | dict[str, str] | None = None  # of every variant, or by variant
    engine_error_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    startup: StartupSpec | Literal["facts"] | None = None  # None: as observed, else the facts
    prices: dict[str, NotNegative] = {}  # accelerator class -> USD an accelerator-hour
    judged_hours: Positive = 24.0
    warm_up_seconds: NotNegative = 900.0  # run and charged, but not judged
    simulator: Literal["auto", "steps", "fluid"] = "auto"  # auto: fluid from FLUID_HOURS on
    tick_seconds: Annotated[float, Field(ge=1, le=300)] = 15.0
    initial_replicas: Annotated[int, Field(ge=0)] | None = None  # None: see docs/whatif.md
    seed: Annotated[int, Field(ge=0)] = 7
    seeds: Annotated[int, Field(ge=1, le=20)] = (
        3  # worlds that are drawn: this seed and the next ones
    )
    spot: SpotSpec = SpotSpec()  # what a variation's spotShare means
    axes: dict[
        str, Annotated[tuple[Any, ...], Field(min_length=1)]
    ] = {}  # field of Change -> values
    combine: bool = False  # every combination of the axes, instead of one at a time
    variations: tuple[Change, ...] = ()  # by name, several changes at once
    autoscalers: Annotated[tuple[AutoscalerSpec, ...], Field(min_length=1)] = (
        AutoscalerSpec(name="foreserve"),
        AutoscalerSpec(name="recorded"),
        AutoscalerSpec(name="static"),
        AutoscalerSpec(name="hpa"),
        AutoscalerSpec(name="hpa-queue"),
        AutoscalerSpec(name="keda"),
        AutoscalerSpec(name="kpa"),
        AutoscalerSpec(name="apa"),
        AutoscalerSpec(name="wva"),
        AutoscalerSpec(name="dynamo"),
        AutoscalerSpec(name="clairvoyant"),
    )

    @property
    def is_fluid(self) -> bool:
        """Whether fleets are simulated as fluids instead of step by step."""
        return self.simulator == "fluid" or (
            self.simulator == "auto" and self.judged_hours >= FLUID_HOURS
        )

    @model_validator(mode="before")
    @classmethod
    def _slower_ticks_for_weeks(cls, raw: Any) -> Any:  # noqa: ANN401  (raw YAML)
        hours = raw.get("judgedHours", 0.0) if isinstance(raw, dict) else 0.0
        if not isinstance(hours, int | float) or hours < FLUID_HOURS:
            return raw
        return {"tickSeconds": WEEKS_TICK_SECONDS, **raw}

    @property
    def changes(self) -> tuple[Change, ...]:
        """The variations: those that are named, and those that the axes make."""
        lists = [[(axis, value) for value in values] for axis, values in self.axes.items()]
        made = (
            itertools.product(*lists) if self.combine else ((v,) for v in itertools.chain(*lists))
        )
        points = [Change.model_validate(dict(pairs)) for pairs in made] if lists else []
        return (*self.variations, *points)

    @model_validator(mode="after")
    def _axes_are_changes(self) -> Self:
        allowed = [f.alias for f in Change.model_fields.values() if f.alias != "name"]
        for axis, values in self.axes.items():
            if axis not in allowed:
                raise ValueError(f"axes: no axis '{axis}'; allowed: {', '.join(map(str, allowed))}")
            for value in values:
                try:
                    Change.model_validate({axis: value})
                except ValidationError as error:
                    raise ValueError(f"axes: {_sentence(error)}") from error
        labels = [change.label for change in self.changes]
        for label in labels:
            if not label or labels.count(label) > 1:
                raise ValueError(
                    f"variations: {label or 'one'!r} changes nothing, or is there twice"
                )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.telemetry is None) == (self.trace is None):
            raise ValueError("give either telemetry or trace, not both and not neither")
        if self.trace is not None and self.profile is None:
            raise ValueError("a trace says nothing about latency: name a profile too")
        if self.warm_up_seconds >= self.judged_hours * 3600:
            raise ValueError("warmUpSeconds must be shorter than judgedHours")
        names = [spec.name for spec in self.autoscalers]
        if len(set(names)) < len(names):
            raise ValueError("autoscalers names one of them twice")
        return self


def load_scenario(path: Path, telemetry: Path | None = None) -> Scenario:
    """Read and check a scenario file; relative paths in it start at its own folder.

    telemetry: a folder that takes the place of the telemetry or trace it names. Raises ScenarioError.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ScenarioError(f"{path}: must hold fields (name: value), got {type(raw).__name__}")
    if telemetry is not None:
        kept = {k: v for k, v in raw.items() if k not in ("trace", "service")}
        raw = {**kept, "telemetry": str(telemetry.resolve())}
    try:
        scenario = Scenario.model_validate(raw)
    except ValidationError as error:
        raise ScenarioError(f"{path}: {_sentence(error)}") from error
    return _with_paths(scenario, path.resolve().parent, path)


def _sentence(error: ValidationError) -> str:
    """Return the first mistake as `field: value: what is allowed`, and how many more there are."""
    details = error.errors()
    first = details[0]
    field = ".".join(str(part) for part in first["loc"]) or "scenario"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{field}: {_problem(first)}{more}"


def _problem(detail: ErrorDetails) -> str:
    kind, message = detail["type"], detail["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        # the inner objects are small: their fields are in docs/whatif.md
        fields = ", ".join(f.alias or n for n, f in Scenario.model_fields.items())
        hint = f"; allowed: {fields}" if len(detail["loc"]) == 1 else ""
        return f"{_ALLOWED[kind]}{hint}"
    if kind == "missing":
        return _ALLOWED[kind]
    if kind == "value_error":  # the rule is about several fields: no single value to show
        return message
    return f"{detail['input']!r}: {_ALLOWED.get(kind, message)}"


def _with_paths(scenario: Scenario, folder: Path, where: Path) -> Scenario:
    changed: dict[str, Any] = {}
    for field in ("telemetry", "policies", "models"):
        value = getattr(scenario, field)
        if value is not None:
            changed[field] = _existing(folder / value, where, field)
    if scenario.trace is not None and not scenario.trace.startswith(BUNDLED):
        changed["trace"] = str(_existing(folder / scenario.trace, where, "trace"))
    return scenario.model_copy(update=changed)


def _existing(path: Path, where: Path, field: str) -> Path:
    if not path.exists():
        raise ScenarioError(f"{where}: {field}: {path}: no such file or folder")
    return path
