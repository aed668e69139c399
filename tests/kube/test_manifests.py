"""What the manifests say, without a cluster: rights, security, names that must agree, examples, image."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_files import (
    MANIFESTS,
    OVERLAYS,
    ROOT,
    Object,
    documents,
    gathered,
    kubectl,
    named,
    overlay,
    pod_specs,
)

from autoscaler.cli import app
from autoscaler.core.types import Policies
from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.kube.deletion_cost import cost_patch
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.edge.telemetry_config import read_labels
from autoscaler.operate.facts import SETTINGS_NAME
from autoscaler.policy.parse import parse_policies
from autoscaler.policy.schema import WarmCapacitySpec
from models.contract import Labels

READ = {"get", "list", "watch"}
WRITABLE = "/tmp"  # noqa: S108 - the path in the container, an emptyDir
EXAMPLES = sorted(p.parent for p in (MANIFESTS / "examples").glob("*/policy.yaml"))
OWN_WRITES = {
    ("own namespace", "coordination.k8s.io", "leases", "create"),
    ("own namespace", "coordination.k8s.io", "leases", "update"),
    *(("own namespace", "", "configmaps", verb) for verb in ("create", "update", "delete")),
    *(("own namespace", "apps", "deployments", verb) for verb in ("create", "patch", "delete")),
}
STATUS_WRITES = {
    ("cluster", "foreserve.dev", "scalingpolicies/status", "patch"),
    ("cluster", "foreserve.dev", "acceleratorpools/status", "patch"),
    ("cluster", "", "events", "create"),
    ("cluster", "", "events", "patch"),
}
SCALE_WRITES = {
    ("cluster", "apps", "deployments/scale", "update"),
    ("cluster", "apps", "statefulsets/scale", "update"),
    ("cluster", "leaderworkerset.x-k8s.io", "leaderworkersets/scale", "update"),
    ("cluster", "", "pods", "patch"),
}
WRITES = {
    "recommend": OWN_WRITES | STATUS_WRITES,
    "scale": OWN_WRITES | STATUS_WRITES | SCALE_WRITES,
    "keda": OWN_WRITES | STATUS_WRITES,
}


def rights(objects: list[Object]) -> Iterator[tuple[str, str, str, str]]:
    """(where, API group, resource, verb) of everything that is granted to anybody."""
    for found in objects:
        if found["kind"] in {"Role", "ClusterRole"}:
            where = "cluster" if found["kind"] == "ClusterRole" else "own namespace"
            assert "aggregationRule" not in found
            for rule in found["rules"]:
                assert set(rule) == {"apiGroups", "resources", "verbs"}
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            yield where, group, resource, verb


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_writes_exactly_this(name: str) -> None:
    granted = set(rights(overlay(name)))
    assert {r for r in granted if r[3] not in READ} == WRITES[name]


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_is_granted_wholesale_and_secrets_never(name: str) -> None:
    for _, group, resource, verb in rights(overlay(name)):
        assert "*" not in group + resource + verb
        assert resource.split("/")[0] not in {"secrets", "serviceaccounts"}
        assert verb not in {"impersonate", "escalate", "bind", "deletecollection"}
        assert resource not in {"pods/exec", "pods/attach", "pods/portforward", "nodes/proxy"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_role_is_bound_to_one_account_alone(name: str) -> None:
    objects = overlay(name)
    roles = {o["metadata"]["name"] for o in objects if o["kind"] in {"Role", "ClusterRole"}}
    bindings = [o for o in objects if o["kind"].endswith("RoleBinding")]
    assert sorted(b["roleRef"]["name"] for b in bindings) == sorted(roles)
    for binding in bindings:
        whose = "foreserve-scaler" if "scaler" in binding["roleRef"]["name"] else "foreserve"
        subject = {"kind": "ServiceAccount", "name": whose, "namespace": "foreserve-system"}
        assert binding["subjects"] == [subject]
        assert binding["roleRef"]["kind"] == binding["kind"].removesuffix("Binding")


def test_the_scaler_reads_policies_and_nothing_else() -> None:
    role = named(overlay("keda"), "ClusterRole", "foreserve-scaler")
    assert set(rights([role])) == {
        ("cluster", "foreserve.dev", "scalingpolicies", verb) for verb in ("list", "watch")
    }


def test_a_scale_that_is_written_can_be_read() -> None:
    granted = set(rights(overlay("scale")))
    for _, group, resource, _ in SCALE_WRITES:
        assert ("cluster", group, resource, "get") in granted


def test_further_kinds_are_scaled_and_nothing_else() -> None:
    objects = list(gathered(MANIFESTS / "components" / "serving-kinds"))
    granted = set(rights(objects))
    assert {verb for *_, verb in granted} == {"get", "update"}
    assert all(resource.endswith("/scale") for _, _, resource, _ in granted)
    assert all(group and "*" not in group + resource for _, group, resource, _ in granted)
    (binding,) = [o for o in objects if o["kind"] == "ClusterRoleBinding"]
    assert binding["subjects"][0]["name"] == "foreserve"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_locked_down(name: str) -> None:
    specs = [spec for found in overlay(name) for spec in pod_specs(found)]
    assert len(specs) == (3 if name == "keda" else 2)  # the operator, training; the scaler
    for spec in specs:
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        reads_the_cluster = spec["serviceAccountName"] != "foreserve-training"
        assert spec["automountServiceAccountToken"] is reads_the_cluster
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert {"name": "tmp", "mountPath": WRITABLE} in container["volumeMounts"]
        for volume in spec["volumes"]:
            assert set(volume) & {"emptyDir", "configMap", "persistentVolumeClaim"}


def test_the_deployment_is_two_probed_replicas_that_only_read_models() -> None:
    deployment = named(overlay("recommend"), "Deployment", "foreserve")["spec"]
    (spec,) = pod_specs(deployment)
    (container,) = spec["containers"]
    assert deployment["replicas"] == 2
    assert {c["topologyKey"] for c in spec["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", 8080)
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    (models,) = [m for m in container["volumeMounts"] if m["name"] == "models"]
    assert models == {"name": "models", "mountPath": "/models", "readOnly": True}
    environment = {e["name"]: e for e in container["env"]}
    assert (
        environment["POD_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    )
    assert environment["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


@pytest.mark.parametrize("name", OVERLAYS)
def test_selectors_find_their_pods(name: str) -> None:
    objects = [o for o in overlay(name) if "scaler" not in o["metadata"]["name"]]
    (operator,) = [o["spec"]["template"] for o in objects if o["kind"] == "Deployment"]
    (training,) = [
        o["spec"]["jobTemplate"]["spec"]["template"] for o in objects if o["kind"] == "CronJob"
    ]
    labels, its = operator["metadata"]["labels"], training["metadata"]["labels"]
    selectors = [o["spec"]["selector"] for o in objects if o["kind"] == "Service"]
    selectors += [
        o["spec"]["selector"]["matchLabels"]
        for o in objects
        if o["kind"] in {"Deployment", "PodDisruptionBudget"}
    ]
    selectors += [
        c["labelSelector"]["matchLabels"] for c in operator["spec"]["topologySpreadConstraints"]
    ]
    selectors.append(policy_selector(objects, "foreserve"))
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= its.items()
    assert policy_selector(objects, "foreserve-training").items() <= its.items()


def test_selectors_find_the_scaler_and_nobody_else() -> None:
    objects = overlay("keda")
    labels = {
        o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"]
        for o in objects
        if o["kind"] == "Deployment"
    }
    deployment = named(objects, "Deployment", "foreserve-scaler")["spec"]
    selectors = [
        named(objects, "Service", "foreserve-scaler")["spec"]["selector"],
        deployment["selector"]["matchLabels"],
        named(objects, "PodDisruptionBudget", "foreserve-scaler")["spec"]["selector"][
            "matchLabels"
        ],
        policy_selector(objects, "foreserve-scaler"),
        *(
            c["labelSelector"]["matchLabels"]
            for c in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        found = [n for n, own in labels.items() if selector.items() <= own.items()]
        assert found == ["foreserve-scaler"]


def policy_selector(objects: list[Object], name: str) -> Object:
    selector: Object = named(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
    return selector


def test_network_policies_let_through_only_what_is_needed() -> None:
    objects = overlay("scale")
    operator = named(objects, "NetworkPolicy", "foreserve")["spec"]
    (entry,) = operator["ingress"]
    assert [p["port"] for p in entry["ports"]] == ["http"]
    assert "foreserve.dev/monitoring" in entry["from"][0]["namespaceSelector"]["matchLabels"]
    out = {p["port"] for e in operator["egress"] for p in e["ports"]}
    assert out == {53, 443, 6443, 9090, 4317, 4318}
    training = named(objects, "NetworkPolicy", "foreserve-training")["spec"]
    assert "ingress" not in training
    assert {p["port"] for e in training["egress"] for p in e["ports"]} == {53, 9090}
    rest = named(objects, "NetworkPolicy", "default-deny")["spec"]
    assert rest == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_only_keda_asks_the_scaler() -> None:
    spec = named(overlay("keda"), "NetworkPolicy", "foreserve-scaler")["spec"]
    keda, monitoring = spec["ingress"]
    assert [p["port"] for p in keda["ports"]] == ["grpc"]
    assert keda["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    ]
    assert [p["port"] for p in monitoring["ports"]] == ["http"]
    assert {p["port"] for e in spec["egress"] for p in e["ports"]} == {53, 443, 6443, 9090}


@pytest.mark.parametrize("name", ["foreserve", "foreserve-scaler"])
def test_no_pod_disruption_budget_blocks_a_drain(name: str) -> None:
    budget = named(overlay("keda"), "PodDisruptionBudget", name)["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def flags_of(*command: str) -> set[str]:
    """The long flags that a command of ours takes, from its own definition."""
    import typer.main

    found: Any = typer.main.get_command(app)
    for part in command:
        found = found.commands[part]
    return {flag for parameter in found.params for flag in parameter.opts}


def command_lines(name: str) -> list[list[str]]:
    specs = [s for o in overlay(name) for s in pod_specs(o)]
    return [c["args"] for s in specs for c in [*s.get("initContainers", []), *s["containers"]]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_commands_take_the_flags_that_they_are_given(name: str) -> None:
    lines = command_lines(name)
    words = [[a for a in line if not a.startswith("-")] for line in lines]
    scaler = [["scaler"]] if name == "keda" else []
    assert sorted(words) == [["ingest", "prometheus"], ["run"], *scaler, ["train"]]
    for line, command in zip(lines, words, strict=True):
        given = {a.split("=", 1)[0] for a in line if a.startswith("-")}
        assert given <= flags_of(*command), command


def test_the_training_settings_can_be_read(tmp_path: Path) -> None:
    settings = named(overlay("recommend"), "ConfigMap", "foreserve-telemetry")["data"]
    path = tmp_path / "telemetry.yaml"
    path.write_text(settings["telemetry.yaml"])
    assert read_labels(path) == Labels()


def test_names_that_the_program_relies_on() -> None:
    objects = overlay("scale")
    default = WarmCapacitySpec.model_fields["priority_class_name"].default
    assert named(objects, "PriorityClass", default)["value"] < 0
    policy = named(objects, "ValidatingAdmissionPolicy", "foreserve-deletion-cost")["spec"]
    (ours,) = [v["expression"] for v in policy["variables"] if v["name"] == "ours"]
    assert set(yaml.safe_load(ours)) == set(cost_patch(1)["metadata"]["annotations"])  # type: ignore[index]
    assert "data" not in named(objects, "ConfigMap", SETTINGS_NAME)  # an apply keeps the switch


# -- kustomize ---------------------------------------------------------------


def built(folder: Path) -> list[Object]:
    program = kubectl()
    if program is None:
        pytest.skip("no kubectl of 1.24 or newer on PATH or in KUBEBUILDER_ASSETS")
    answer = subprocess.run(
        [program, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return [d for d in yaml.safe_load_all(answer.stdout) if d]


def key(found: Object) -> tuple[str, str, str]:
    return found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_kustomize_builds_what_these_tests_read(name: str) -> None:
    expected = {key(o): o for o in overlay(name)}
    found = {key(o): o for o in built(MANIFESTS / "overlays" / name)}
    assert set(found) == set(expected)
    for each, whole in found.items():
        labels = whole["metadata"].pop("labels")
        assert labels["app.kubernetes.io/part-of"] == "foreserve"
        expected[each]["metadata"].pop("labels", None)
        assert whole == expected[each]


def build_with(tmp_path: Path, component: str, name: str = "recommend") -> list[Object]:
    """An overlay with one component, as a user's own kustomization would have it."""
    tree = tmp_path / "manifests"
    tree.symlink_to(MANIFESTS)
    own = tmp_path / "own"
    own.mkdir()
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../manifests/overlays/{name}"],
            "components": [f"../manifests/components/{component}"],
        }
    )
    (own / "kustomization.yaml").write_text(text)
    return built(own)


def test_without_shared_volumes_there_is_one_operator_and_training_beside_it(
    tmp_path: Path,
) -> None:
    objects = build_with(tmp_path, "models-rwo")
    claim = named(objects, "PersistentVolumeClaim", "foreserve-models")["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    deployment = named(objects, "Deployment", "foreserve")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    (spec,) = pod_specs(named(objects, "CronJob", "foreserve-training"))
    (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = deployment["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()


MIB = re.compile(r"--decision-log-mib=(\d+)")
LOG_VOLUME = "decisions"


def mounted(deployment: Object, volume: str) -> tuple[str, Object]:
    """Return where a Deployment's container has a volume, and the volume."""
    (spec,) = pod_specs(deployment)
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == volume]
    (found,) = [v for v in spec["volumes"] if v["name"] == volume]
    return mount["mountPath"], found


def test_the_decision_log_has_room_in_its_volume(tmp_path: Path) -> None:
    for objects in (overlay("recommend"), build_with(tmp_path, "decision-log")):
        deployment = named(objects, "Deployment", "foreserve")
        (container,) = pod_specs(deployment)[0]["containers"]
        folder, volume = mounted(deployment, LOG_VOLUME)
        assert f"--decision-log={folder}" in container["args"]
        (mib,) = [int(m[1]) for a in container["args"] if (m := MIB.fullmatch(a))]
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"] == f"{mib + 256}Mi"
        else:
            claim = named(
                objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
            )
            assert claim["spec"]["resources"]["requests"]["storage"] == f"{2 * mib // 1024}Gi"
    assert set(volume) == {"name", "persistentVolumeClaim"}  # the component's, and no emptyDir


def test_with_mtls_the_scaler_has_its_files_and_takes_the_flags(tmp_path: Path) -> None:
    objects = build_with(tmp_path, "keda-mtls", "keda")
    (spec,) = pod_specs(named(objects, "Deployment", "foreserve-scaler"))
    (container,) = spec["containers"]
    given = dict(a.split("=", 1) for a in container["args"][1:])
    assert set(given) <= flags_of("scaler")
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "tls"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == "tls"]
    assert volume["secret"]["secretName"] == "foreserve-scaler-tls"
    for flag in ("--tls-cert", "--tls-key", "--client-ca"):
        assert given[flag].startswith(f"{mount['mountPath']}/")


@pytest.mark.parametrize(
    ("monitor_name", "service_name"),
    [("foreserve", "foreserve-metrics"), ("foreserve-scaler", "foreserve-scaler")],
)
def test_the_service_monitor_finds_the_service(
    tmp_path: Path, monitor_name: str, service_name: str
) -> None:
    objects = build_with(tmp_path, "servicemonitor", "keda")
    monitor = named(objects, "ServiceMonitor", monitor_name)
    service = named(objects, "Service", service_name)
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert monitor["spec"]["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}


def test_every_file_of_a_kustomization_is_listed_in_it() -> None:
    for path in MANIFESTS.rglob("kustomization.yaml"):
        (content,) = documents(path)
        files = {p.name for p in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert {r for r in content.get("resources", []) if r.endswith(".yaml")} == files, path


# -- examples ----------------------------------------------------------------


def parsed(example: Path) -> Policies:
    files = [example / "policy.yaml", MANIFESTS / "examples" / "pool.yaml"]
    return parse_policies([(p.name, p.read_text()) for p in files])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_an_example_is_valid_and_fits_its_workload(example: Path) -> None:
    (policy,) = parsed(example).services.values()
    workloads = {
        (w["kind"], w["metadata"]["name"]): w for w in documents(example / "workload.yaml")
    }
    assert len(workloads) == len(policy.variants)
    for v in policy.variants:
        workload = workloads[v.target_ref.kind, v.target_ref.name]
        assert workload["apiVersion"] == v.target_ref.api_version
        assert workload["metadata"]["namespace"] == policy.namespace
        assert "replicas" not in workload["spec"] or example.name == "quickstart"
        labels = {"service": policy.service.split("/")[1], "variant": v.name}
        assert labels in list(label_sets(workload))
        if example.name != "quickstart":
            assert accelerators(workload) == v.accelerators_per_replica


def label_sets(workload: Object) -> Iterator[Object]:
    template = workload["spec"].get("template")
    if template is None:
        template = workload["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
    yield template["metadata"]["labels"]


def accelerators(workload: Object) -> int:
    """Of one replica: a Deployment's pod, or a group's leader and its workers."""
    each = [
        int(amount)
        for spec in pod_specs(workload)
        for container in spec["containers"]
        for resource, amount in container["resources"]["limits"].items()
        if resource.endswith("/gpu")
    ]
    group = workload["spec"].get("leaderWorkerTemplate")
    if group is None:
        return sum(each)
    assert len(set(each)) == 1  # leader and workers alike
    return each[0] * int(group["size"])


def test_the_examples_can_be_applied_together() -> None:
    files = [MANIFESTS / "examples" / "pool.yaml"]
    files += [e / "policy.yaml" for e in EXAMPLES]
    policies = parse_policies([(p.name, p.read_text()) for p in files])
    assert len(policies.services) == len(EXAMPLES)
    assert {v.role for p in policies.services.values() for v in p.variants} >= {"Prefill", "Decode"}
    kinds = {v.target_ref.kind for p in policies.services.values() for v in p.variants}
    assert kinds == {"Deployment", "LeaderWorkerSet"}


# -- monitoring (queries, alerts: tests/monitoring) ----------------------------


def test_the_documentation_names_every_metric() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    scaler = ScalerMetrics("1", Plans(Clock())).registry
    for family in (*OperatorMetrics("1").registry.collect(), *scaler.collect()):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in text, name


# -- image -------------------------------------------------------------------


def test_nothing_names_a_registry_or_an_address() -> None:
    for path in MANIFESTS.rglob("*.yaml"):
        for image in re.findall(r"image: (\S+)", path.read_text(encoding="utf-8")):
            host = image.split("/")[0]
            assert "/" not in image or not re.search(r"[.:]", host), f"{path}: {image}"
    (first, second) = re.findall(r"^FROM (.+)$", (ROOT / "Containerfile").read_text(), re.M)
    assert (first, second) == ("${PYTHON} AS build", "${PYTHON}")


def test_the_containerfile_builds_what_the_manifests_run() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=python:3\.\d+-slim$", text, re.M)
    assert re.search(r"^USER 65532:65532$", text, re.M)
    assert re.search(r'^ENTRYPOINT \["foreserve"\]$', text, re.M)
    assert "-c constraints.txt" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = set(re.findall(r"extras\['(\w+)'\]", text))
    assert {"kubernetes", "prometheus"} <= wanted <= set(project["optional-dependencies"])
    images = {
        c["image"] for o in overlay("recommend") for s in pod_specs(o) for c in s["containers"]
    }
    assert images == {f"foreserve:{project['version']}"}


def test_the_build_gets_what_the_wheel_is_made_of_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {r.removeprefix("!") for r in rules if r.startswith("!")}
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE"} <= let_in
    assert {"models", "training", "autoscaler"} <= let_in
    assert all((ROOT / name).exists() for name in let_in)


def test_every_manifest_is_named_by_some_kustomization_or_meant_to_be_applied_alone() -> None:
    used = {p for o in OVERLAYS for p in files_of(MANIFESTS / "overlays" / o)}
    used |= {p for c in (MANIFESTS / "components").iterdir() for p in files_of(c)}
    alone = {p for f in ("examples", "monitoring") for p in (MANIFESTS / f).rglob("*.yaml")} | {
        MANIFESTS / "recording-rules.yaml"
    }
    assert {p.resolve() for p in MANIFESTS.rglob("*.yaml")} == used | {p.resolve() for p in alone}


def files_of(folder: Path) -> Iterator[Path]:
    yield (folder / "kustomization.yaml").resolve()
    (content,) = documents(folder / "kustomization.yaml")
    for entry in [*content.get("resources", []), *content.get("components", [])]:
        path = (folder / entry).resolve()
        if path.is_dir():
            yield from files_of(path)
        else:
            yield path


def test_gathered_sets_the_namespace() -> None:
    base = list(gathered(MANIFESTS / "base"))
    assert named(base, "Role", "foreserve")["metadata"]["namespace"] == "foreserve-system"
    assert "namespace" not in named(base, "ClusterRole", "foreserve-read")["metadata"]
