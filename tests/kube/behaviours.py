"""The table of behaviours that the double and the real API server share."""

from behaviour_steps import (
    ABSENT,
    GROUP,
    MODIFIED,
    Step,
    bare,
    changed,
    configmap,
    deployment,
    failure,
    invalid_widget,
    lease,
    pod,
    scale,
    version,
    widget,
)

BEHAVIOURS: dict[str, list[Step]] = {
    "create gives uid, version, time, no generation without spec": [
        Step("POST configmaps", configmap("a", k="v"), 201, {
            "kind": "ConfigMap", "apiVersion": "v1", "data": {"k": "v"},
            "metadata": {"name": "a", "namespace": "{ns}", "uid": ..., "resourceVersion": ...,
                         "creationTimestamp": ..., "generation": ABSENT}}),
        Step("GET configmaps/a", has={"data": {"k": "v"}}),
    ],
    "generateName": [
        Step("POST configmaps", {"metadata": {"generateName": "p-"}}, 201, {"metadata": {"name": ...}}),
    ],
    "404 core": [
        Step("GET configmaps/none", code=404, has=failure(
            404, "NotFound", 'configmaps "none" not found',
            details={"name": "none", "kind": "configmaps", "group": ABSENT})),
        Step("DELETE configmaps/none", code=404),
        Step("PUT configmaps/none", configmap("none"), 404),
        Step("PATCH configmaps/none", {"data": {"a": "b"}}, 404),
    ],
    "404 group": [
        Step("GET deployments/none", code=404, has=failure(
            404, "NotFound", 'deployments.apps "none" not found',
            details={"name": "none", "group": "apps", "kind": "deployments"})),
        Step("GET widgets/none/scale", code=404, has=failure(
            404, "NotFound", f'widgets.{GROUP} "none" not found')),
    ],
    "404 unknown path": [
        Step("GET /apis/none.example.com/v1/things", code=404, has={"text": "404 page not found\n"}),
        Step("GET /apis/" + GROUP + "/v1/namespaces/{ns}/gadgets", code=404,
             has={"text": "404 page not found\n"}),
        Step("GET gadgets", code=404, has=failure(
            404, "NotFound", "the server could not find the requested resource", details={})),
        Step("DELETE /api/v1/namespaces", code=405, has={"reason": "MethodNotAllowed"}),
    ],
    "400 what a body says it is": [
        Step("POST widgets", {**widget("a"), "apiVersion": "x/v2"}, 400, failure(
            400, "BadRequest", "the API version in the data (x/v2) does not match the expected API "
            f"version ({GROUP}/v1)")),
        Step("POST widgets", {**widget("a"), "kind": "Odd"}, 422, failure(
            422, "Invalid", f'Odd.{GROUP} "a" is invalid: kind: Invalid value: "Odd": must be Widget')),
        Step("POST widgets", {"metadata": {"name": "a"}, "spec": {"size": 1}}, 400),
        Step("POST widgets", [], 400, {"reason": "BadRequest"}),
        Step("POST configmaps", {**configmap("a"), "apiVersion": "v2"}, 400),
        Step("POST configmaps", {"metadata": {"name": "a"}}, 201, {"kind": "ConfigMap"}),
        Step("GET configmaps", code=400, params=(("limit", "x"),)),
    ],
    "404 namespace": [
        Step("POST /api/v1/namespaces/nowhere/configmaps", configmap("a"), 404, failure(
            404, "NotFound", 'namespaces "nowhere" not found')),
        Step("GET /api/v1/namespaces/nowhere/configmaps", has={"items": []}),
    ],
    "409 exists": [
        Step("POST configmaps", configmap("a"), 201),
        Step("POST configmaps", configmap("a"), 409, failure(
            409, "AlreadyExists", 'configmaps "a" already exists')),
    ],
    "409 conflict on PUT": [
        Step("POST configmaps", configmap("a", k="1"), 201),
        Step("PATCH configmaps/a", {"data": {"k": "2"}}, has={"data": {"k": "2"}}),
        Step("PUT configmaps/a", lambda seen: seen[0], 409, failure(
            409, "Conflict", f'Operation cannot be fulfilled on configmaps "a": {MODIFIED}',
            details={"name": "a", "kind": "configmaps"})),
        Step("GET configmaps/a", has={"data": {"k": "2"}}),
        Step("PUT configmaps/a", lambda seen: bare(seen[0]), has={"data": {"k": "1"}}),
    ],
    "409 conflict on PATCH with a version": [
        Step("POST widgets", widget("a"), 201),
        Step("PATCH widgets/a", {"spec": {"size": 2}}),
        Step("PATCH widgets/a", lambda seen: {
            "metadata": {"resourceVersion": version(seen, 0)}, "spec": {"size": 3}}, 409, failure(
            409, "Conflict", f'Operation cannot be fulfilled on widgets.{GROUP} "a": {MODIFIED}')),
        Step("PATCH widgets/a", lambda seen: {
            "metadata": {"resourceVersion": version(seen, 1)}, "spec": {"size": 3}}),
    ],
    "409 another uid": [
        Step("POST configmaps", configmap("a"), 201),
        Step("PUT configmaps/a", {"metadata": {"name": "a", "uid": "other"}}, 409, {"reason": "Conflict"}),
        Step("DELETE configmaps/a", {"preconditions": {"uid": "other"}}, 409, {"reason": "Conflict"}),
        Step("DELETE configmaps/a", lambda seen: {"preconditions": {
            "uid": seen[0]["metadata"]["uid"]}}, 200, {"kind": "Status", "status": "Success"}),
    ],
    "an update of a custom resource or a lease needs a version": [
        Step("POST widgets", widget("a"), 201),
        Step("PUT widgets/a", lambda seen: bare(seen[0]), 422, {"reason": "Invalid", "message":
             f'widgets.{GROUP} "a" is invalid: metadata.resourceVersion: '
             "Invalid value: 0: must be specified for an update"}),
        Step("POST leases", lease("l"), 201),
        Step("PUT leases/l", lambda seen: bare(seen[2]), 422, {"reason": "Invalid"}),
    ],
    "a version on create": [
        Step("POST configmaps", {"metadata": {"name": "a", "resourceVersion": "1"}}, 500, {
            "message": "resourceVersion should not be set on objects to be created"}),
    ],
    "400 names and namespaces must match": [
        Step("POST configmaps", configmap("a"), 201),
        Step("PUT configmaps/a", configmap("b"), 400, failure(
            400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)")),
        Step("POST configmaps", {"metadata": {"name": "c", "namespace": "default"}}, 400, failure(
            400, "BadRequest", "the namespace of the provided object does not match the namespace "
            "sent on the request")),
    ],
    "422 names, labels": [
        Step("POST configmaps", {"metadata": {}}, 422, {"reason": "Invalid", "message":
             'ConfigMap "" is invalid: metadata.name: Required value: '
             "name or generateName is required"}),
        Step("POST configmaps", configmap("A_b"), 422, {"reason": "Invalid"}),
        Step("POST configmaps", {"metadata": {"name": "a", "labels": {"k": "a b"}}}, 422, {
            "details": {"causes": [{"field": "metadata.labels"}]}}),
    ],
    "generation counts changes of spec only": [
        Step("POST widgets", widget("a"), 201, {"metadata": {"generation": 1}}),
        Step("PATCH widgets/a", {"metadata": {"labels": {"x": "y"}}}, has={"metadata": {
            "generation": 1, "labels": {"x": "y"}}}),
        Step("PATCH widgets/a/status", {"status": {"note": "n"}}, has={"metadata": {"generation": 1}}),
        Step("PATCH widgets/a", {"spec": {"size": 2}}, has={"metadata": {"generation": 2}}),
        Step("POST deployments", deployment("d"), 201, {"metadata": {"generation": 1}}),
        Step("PATCH deployments/d", {"metadata": {"labels": {"x": "y"}}}, has={
            "metadata": {"generation": 1}}),
        Step("PATCH deployments/d", {"spec": {"replicas": 3}}, has={"metadata": {"generation": 2}}),
        Step("PATCH deployments/d", {"metadata": {"annotations": {"x": "y"}}}, has={
            "metadata": {"generation": 3}}),  # Deployments alone count annotations too
    ],
    "a write that changes nothing keeps the version": [
        Step("POST widgets", widget("a"), 201),
        Step("PATCH widgets/a", {"spec": {"size": 1}}),
        Step("PATCH widgets/a", lambda seen: {"metadata": {"resourceVersion": version(seen, 0)},
                                              "spec": {"size": 2}}),
    ],
    "status apart": [
        Step("POST widgets", {**widget("a"), "status": {"note": "early"}}, 201, {"status": ABSENT}),
        Step("PATCH widgets/a", {"status": {"note": "no"}, "spec": {"size": 2}}, has={
            "status": ABSENT, "spec": {"size": 2}}),
        Step("PUT widgets/a/status", lambda seen: {
            **changed(seen[1], size=9), "status": {"note": "yes"}}, has={
            "status": {"note": "yes"}, "spec": {"size": 2}}),
        Step("PATCH widgets/a/status", {"metadata": {"labels": {"a": "b"}},
             "status": {"replicas": 1}}, has={
             "status": {"note": "yes", "replicas": 1}, "metadata": {"labels": ABSENT}}),
        Step("GET widgets/a/status", has={"status": {"note": "yes"}, "spec": {"size": 2}}),
        Step("PUT widgets/a", lambda seen: {k: v for k, v in seen[-1].items() if k != "status"},
             has={"status": {"note": "yes"}}),
        Step("PUT widgets/a/status", lambda seen: seen[0], 409, {"reason": "Conflict"}),
    ],
    "status of built-in kinds": [
        Step("POST deployments", {**deployment("d"), "status": {"replicas": 9}}, 201),
        Step("GET deployments/d", has={"status": {"replicas": ABSENT}}),
        Step("PATCH deployments/d/status", {"status": {"replicas": 2, "readyReplicas": 1},
             "spec": {"replicas": 7}}, has={"status": {"replicas": 2}, "spec": {"replicas": 1}}),
        Step("POST pods", pod("p"), 201, {"status": {"phase": "Pending"}}),
        Step("PATCH pods/p/status", {"status": {"phase": "Running"}}, has={
            "status": {"phase": "Running"}}),
        Step("PATCH pods/p", {"metadata": {"annotations": {"a": "b"}}, "status": {"phase": "Failed"}},
             has={"status": {"phase": "Running"}, "metadata": {"annotations": {"a": "b"}}}),
    ],
    "scale of a deployment": [
        Step("POST deployments", deployment("d"), 201, {"spec": {"replicas": 1}}),
        Step("GET deployments/d/scale", has={
            "kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": 1},
            "metadata": {"name": "d", "namespace": "{ns}", "uid": ..., "resourceVersion": ...},
            "status": {"replicas": 0, "selector": "app=d"}}),
        Step("PUT deployments/d/scale", lambda seen: changed(seen[1], replicas=4), has={
            "spec": {"replicas": 4}}),
        Step("GET deployments/d", has={"spec": {"replicas": 4}, "metadata": {"generation": 2}}),
        Step("PUT deployments/d/scale", lambda seen: changed(seen[1], replicas=5), 409, failure(
            409, "Conflict", f'Operation cannot be fulfilled on deployments.apps "d": {MODIFIED}')),
        Step("PUT deployments/d/scale", scale("d", 6), has={"spec": {"replicas": 6}}),
        Step("PATCH deployments/d/scale", {"spec": {"replicas": 0}}, has={"spec": {"replicas": ABSENT}}),
        Step("PATCH deployments/d/scale", {"spec": {"replicas": -1}}, 422, failure(
            422, "Invalid", 'Scale.autoscaling "d" is invalid: spec.replicas: Invalid value: -1: '
            "must be greater than or equal to 0")),
    ],
    "scale of a custom resource": [
        Step("POST widgets", widget("a"), 201),
        Step("PATCH widgets/a/status", {"status": {"replicas": 2, "selector": "app=a,b in (c,d)"}}),
        Step("GET widgets/a/scale", has={
            "spec": {"replicas": 1}, "status": {"replicas": 2, "selector": "app=a,b in (c,d)"}}),
        Step("PUT widgets/a/scale", lambda seen: changed(seen[2], replicas=3), has={
            "spec": {"replicas": 3}, "status": {"replicas": 2}}),
        Step("GET widgets/a", has={
            "spec": {"replicas": 3, "size": 1}, "metadata": {"generation": 2}}),
        Step("PUT widgets/a/scale", lambda seen: changed(seen[2], replicas=4), 409, failure(
            409, "Conflict", f'Operation cannot be fulfilled on widgets.{GROUP} "a": {MODIFIED}')),
        Step("PATCH widgets/a/scale", {"spec": {"replicas": 5}}, has={"spec": {"replicas": 5}}),
        Step("PUT widgets/a/scale", scale("a", -1), 422, {"reason": "Invalid"}),
        Step("PUT widgets/a/scale", scale("b", 1), 400, {"reason": "BadRequest"}),
        Step("PUT widgets/a/scale", {**scale("a", 6), "metadata": {"name": "a", "uid": "other"}}, 409),
        Step("GET widgets/a/scale", has={"spec": {"replicas": 5}}),
    ],
    "no scale where none is declared": [
        Step("POST configmaps", configmap("a"), 201),
        Step("GET configmaps/a/scale", code=404),
    ],
    "merge patch: null removes, lists are replaced": [
        Step("POST widgets", widget("a", labels={"x": "1", "y": "2"}, parts=[{"name": "p"}]), 201),
        Step("PATCH widgets/a", {"spec": {"labels": {"x": None}, "parts": [{"name": "q"}]}}, has={
            "spec": {"labels": {"x": ABSENT, "y": "2"}, "parts": [{"name": "q"}]}}),
        Step("PATCH widgets/a", {"spec": {"mode": None}}, has={"spec": {"mode": "Fast"}}),
        Step("PATCH widgets/a", {"spec": {"size": None}}, 422, invalid_widget(
            "a", ("spec.size", "Required value"))),
    ],
    "JSON patch": [
        Step("POST configmaps", configmap("a", k="1"), 201),
        Step("PATCH configmaps/a", [{"op": "test", "path": "/data/k", "value": "1"},
             {"op": "replace", "path": "/data/k", "value": "2"},
             {"op": "add", "path": "/metadata/labels", "value": {}},
             {"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}], patch="json-patch", has={
             "data": {"k": "2"}, "metadata": {"labels": {"a/b": "x"}}}),
        Step("PATCH configmaps/a", [{"op": "test", "path": "/data/k", "value": "1"}], 422,
             {"reason": "Invalid", "message":
              "the server rejected our request due to an error in our request"}, "json-patch"),
        Step("PATCH configmaps/a", [{"op": "remove", "path": "/data/none"}], 422,
             patch="json-patch"),
    ],
    "strategic merge patch": [
        Step("POST configmaps", configmap("a", k="1", m="2"), 201),
        Step("PATCH configmaps/a", {"data": {"k": None}}, patch="strategic-merge-patch", has={
            "data": {"k": ABSENT, "m": "2"}}),
        Step("POST widgets", widget("a"), 201),
        Step("PATCH widgets/a", {"spec": {"size": 2}}, 415, {"reason": "UnsupportedMediaType"},
             "strategic-merge-patch"),
    ],
    "custom resources: defaults and pruning": [
        Step("POST widgets", widget("a", unknown=1, nested={"more": 2}, free={"any": [1]}), 201, {
            "spec": {"mode": "Fast", "replicas": 1, "unknown": ABSENT, "free": {"any": [1]},
                     "nested": {"deep": True, "more": ABSENT}, "code": ABSENT}}),
        Step("POST widgets", widget("b", mode=None), 201, {"spec": {"mode": "Fast"}}),
        Step("POST widgets", widget("c", unknown=1), 400, {"reason": "BadRequest", "message":
             'Widget in version "v1" cannot be handled as a Widget: strict decoding error: '
             'unknown field "spec.unknown"'}, params=(("fieldValidation", "Strict"),)),
    ],
    "custom resources: validation": [
        Step("POST widgets", widget("a", size=0), 422, invalid_widget("a", (
            "spec.size", "Invalid value: 0: spec.size in body should be greater than or equal to 1"))),
        Step("POST widgets", widget("a", size=11), 422, invalid_widget("a", (
            "spec.size", "Invalid value: 11: spec.size in body should be less than or equal to 10"))),
        Step("POST widgets", widget("a", mode="Odd"), 422, invalid_widget("a", (
            "spec.mode", 'Unsupported value: "Odd": supported values: "Fast", "Slow"'))),
        Step("POST widgets", widget("a", size="big"), 422, invalid_widget("a", (
            "spec.size", 'Invalid value: "string": spec.size in body must be of type integer: '
            '"string"'))),
        Step("POST widgets", widget("a", size=1.5), 422, {"reason": "Invalid"}),
        Step("POST widgets", widget("a", code="ABC"), 422, invalid_widget("a", (
            "spec.code", "Invalid value: \"ABC\": spec.code in body should match '^[a-z]+$'"))),
        Step("POST widgets", widget("a", code="a"), 422, invalid_widget("a", (
            "spec.code", 'Invalid value: "a": spec.code in body should be at least 2 chars long'))),
        Step("POST widgets", widget("a", code="abcdef"), 422, invalid_widget("a", (
            "spec.code", "Too long: may not be more than 5 bytes"))),
        Step("POST widgets", widget("a", ratio=0), 422, invalid_widget("a", (
            "spec.ratio", "Invalid value: 0: spec.ratio in body should be greater than 0"))),
        Step("POST widgets", widget("a", parts=[]), 422, invalid_widget("a", (
            "spec.parts", "Invalid value: 0: spec.parts in body should have at least 1 items"))),
        Step("POST widgets", widget("a", parts=[{"name": n} for n in "xyz"]), 422, invalid_widget(
            "a", ("spec.parts", "Too many: 3: must have at most 2 items"))),
        Step("POST widgets", widget("a", parts=[{"name": "x"}, {"name": "x"}]), 422, invalid_widget(
            "a", ("spec.parts[1]", 'Duplicate value: {"name":"x"}'))),
        Step("POST widgets", widget("a", parts=[{"weight": 1}]), 422, invalid_widget(
            "a", ("spec.parts[0].name", "Required value"))),
        Step("POST widgets", widget("a", labels={"k": 1}), 422, {"reason": "Invalid"}),
        Step("POST widgets", widget("a", port=True), 422, {"reason": "Invalid"}),
        Step("POST widgets", {**widget("a"), "spec": None}, 422, {"reason": "Invalid"}),
        Step("POST widgets", widget("a", port="http", ratio=2), 201, {"spec": {"ratio": 2}}),
        Step("PATCH widgets/a/status", {"status": {"replicas": "two"}}, 422, {"reason": "Invalid"}),
        Step("GET widgets/a", has={"status": ABSENT}),
    ],
    "finalizers hold a deleted object": [
        Step("POST widgets", {**widget("a"), "metadata": {"name": "a", "finalizers": ["x.io/y"]}}, 201),
        Step("DELETE widgets/a", has={"metadata": {"deletionTimestamp": ..., "generation": 2,
                                                   "deletionGracePeriodSeconds": 0}}),
        Step("GET widgets/a", has={"metadata": {"deletionTimestamp": ...}}),
        Step("PATCH widgets/a", {"metadata": {"finalizers": None}}),
        Step("GET widgets/a", code=404),
    ],
    "a pod on a node waits for its kubelet": [
        Step("POST pods", pod("on", "n1"), 201),
        Step("POST pods", pod("off"), 201),
        Step("DELETE pods/off", has={"kind": "Pod"}),
        Step("GET pods/off", code=404),
        Step("DELETE pods/on", has={"metadata": {
            "deletionTimestamp": ..., "deletionGracePeriodSeconds": 30}}),
        Step("GET pods/on"),
        Step("DELETE pods/on", {"gracePeriodSeconds": 0}),
        Step("GET pods/on", code=404),
    ],
    "deletion by labels": [
        *[Step("POST configmaps", {"metadata": {"name": n, "labels": {"l": n[0]}}}, 201)
          for n in ("a1", "a2", "b1")],
        Step("DELETE configmaps", params=(("labelSelector", "l=a"),)),
        Step("GET configmaps", has={"items": [{"metadata": {"name": "b1"}}]}),
    ],
    "selectors": [
        *[Step("POST configmaps", {"metadata": {"name": n, "labels": {"l": n, "all": ""}}}, 201)
          for n in "abc"],
        *[Step("GET configmaps", params=(("labelSelector", text),), has={
            "items": [{"metadata": {"name": n}} for n in names]})
          for text, names in (("l=b", "b"), ("l!=b", "ac"), ("l in (a, c)", "ac"), ("l notin (a)", "bc"),
                              ("all", "abc"), ("!all", ""), ("all,l==c", "c"))],
        Step("GET configmaps", params=(("fieldSelector", "metadata.name=b"),), has={
            "items": [{"metadata": {"name": "b"}}]}),
        Step("GET widgets", code=400, params=(("fieldSelector", "spec.size=1"),)),
        Step("GET configmaps", code=400, params=(("labelSelector", "a=b=c"),)),
    ],
    "lists": [
        *[Step("POST widgets", widget(n), 201) for n in "cab"],
        Step("GET widgets", has={"kind": "WidgetList", "apiVersion": f"{GROUP}/v1",
             "metadata": {"resourceVersion": ..., "continue": ABSENT}, "items": [
             {"metadata": {"name": "a"}, "kind": "Widget", "apiVersion": f"{GROUP}/v1"},
             {"metadata": {"name": "b"}}, {"metadata": {"name": "c"}}]}),
    ],
    "leases": [
        Step("POST leases", lease("l"), 201, {"spec": {"leaseDurationSeconds": 10}}),
        Step("PUT leases/l", lambda seen: changed(seen[0], holderIdentity="you"), has={
            "spec": {"holderIdentity": "you"}}),
        Step("PUT leases/l", lambda seen: changed(seen[0], holderIdentity="they"), 409),
        Step("POST leases", lease("m", 0), 422, failure(
            422, "Invalid", 'Lease.coordination.k8s.io "m" is invalid: spec.leaseDurationSeconds: '
            "Invalid value: 0: must be greater than 0")),
    ],
    "a large ConfigMap": [
        Step("POST configmaps", configmap("a", k="x" * 2**20), 201),
        Step("POST configmaps", configmap("b", k="x" * (2**20 + 1)), 422, {"reason": "Invalid"}),
    ],
    "events by both names": [
        Step("POST events", {"metadata": {"name": "e"}, "reason": "Scaled", "message": "up",
             "type": "Normal", "count": 2, "involvedObject": {"kind": "Widget", "name": "a",
             "namespace": "{ns}"}}, 201),
        Step("GET /apis/events.k8s.io/v1/namespaces/{ns}/events/e", has={
            "note": "up", "regarding": {"name": "a"}, "deprecatedCount": 2}),
        Step("POST events", {"metadata": {"name": "f"}, "reason": "Scaled", "message": "up",
             "type": "Normal", "involvedObject": {"kind": "Node", "name": "n"}}, 422,
             {"reason": "Invalid"}),
        Step("POST /apis/events.k8s.io/v1/namespaces/{ns}/events", {"metadata": {"name": "g"},
             "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "foreserve.dev/x",
             "reportingInstance": "x-1", "action": "Scale", "reason": "Scaled", "type": "Normal",
             "note": "up", "regarding": {"kind": "Widget", "name": "a", "namespace": "{ns}"}}, 201),
        Step("GET events/g", has={"message": "up", "reportingComponent": "foreserve.dev/x"}),
        Step("POST /apis/events.k8s.io/v1/namespaces/{ns}/events", {"metadata": {"name": "h"},
             "note": "up", "regarding": {"kind": "Widget", "name": "a", "namespace": "{ns}"}}, 422,
             {"reason": "Invalid"}),
    ],
    "dry run": [
        Step("POST widgets", widget("a"), 201, {"spec": {"mode": "Fast"}}, params=(("dryRun", "All"),)),
        Step("GET widgets/a", code=404),
    ],
    "a terminating namespace takes nothing new": [
        Step("DELETE /api/v1/namespaces/{ns}", has={"status": {"phase": "Terminating"}}),
        Step("POST configmaps", configmap("a"), 403, {"reason": "Forbidden"}),
    ],
    "an administrator may": [
        Step("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}, 201, {
            "status": {"allowed": True}}),
    ],
}  # fmt: skip
