"""A site on Kubernetes: what the API takes, what one pod shares with no other, what is refused."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edge.deploy.guarantees import notes
from edge.deploy.kubernetes.objects import Manifests, manifests
from edge.deploy.validate import check_target
from edge.deploy.workload import Workload, load_workload
from edge.errors import DefinitionError
from edge.health import EVERY
from tests.cli.conftest import Edge
from tests.cli.conftest import edge as edge  # a fixture
from tests.deploy.aws import Aws
from tests.deploy.sites import PIPELINE, make
from tests.deploy.test_validate import KUBERNETES

CLAIMS = {**KUBERNETES, "names: [gw-1]": "count: 2", "outbox: /var/lib/edge\n": ""}
LATER = "kubernetes: {namespace: plants}\nstop_timeout"
SITES: Mapping[str, Mapping[str, str]] = {
    "on nodes": KUBERNETES,
    "on claims": CLAIMS,
    "with everything": {
        **CLAIMS,
        "mode: bridge": "mode: host",
        "memory: 256MiB": "memory: 1GiB, gpu: 1",
        "stop_timeout": "architecture: arm64\nkubernetes: {namespace: plants, storage: 2500MB,"
        " storage_class: local, nodes: {rack: a}, definitions: configmap, pull_secret: registry,"
        " identity: secret}\nstop_timeout",
    },
}
OLDEST = "1.29"  # since it a ReadWriteOncePod claim is no trial any more


def workload_of(folder: Path, changes: Mapping[str, str], pipeline: str = PIPELINE) -> Workload:
    site = make(folder, changes, pipeline)
    check_target(site)
    return load_workload(site)


def made_of(folder: Path, changes: Mapping[str, str], pipeline: str = PIPELINE) -> Manifests:
    return manifests(workload_of(folder, changes, pipeline))


def read(made: Manifests, kind: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(made.text()) if each["kind"] == kind]


def processors(made: Manifests) -> list[dict[str, Any]]:
    return read(made, "StatefulSet") + read(made, "DaemonSet")


def pod_of(processor: Mapping[str, Any]) -> Any:
    return processor["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("changes", SITES.values(), ids=SITES)
def test_the_api_takes_every_object(
    tmp_path: Path, changes: Mapping[str, str], version: str
) -> None:
    objects = [*yaml.safe_load_all(made_of(tmp_path, changes).text())]
    assert len(objects) >= 2
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("changes", SITES.values(), ids=SITES)
def test_what_objects_name_is_there(tmp_path: Path, changes: Mapping[str, str]) -> None:
    """Which the schemas of the API do not see."""
    made = made_of(tmp_path, changes)
    (account,) = read(made, "ServiceAccount")
    there = {each["metadata"]["name"] for each in read(made, "ConfigMap")}
    for each in processors(made):
        pod, own = pod_of(each), each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"] == own
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {c["metadata"]["name"] for c in each["spec"].get("volumeClaimTemplates", [])}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        places = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(places)) == len(places)
        maps = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
        assert set(maps) == there
        if each["kind"] == "StatefulSet":
            (service,) = read(made, "Service")
            assert service["metadata"]["name"] == each["spec"]["serviceName"]
            assert service["spec"]["selector"].items() <= own.items()
    for each in made.objects:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", each["metadata"]["name"])


@pytest.mark.parametrize("changes", SITES.values(), ids=SITES)
def test_a_pod_may_nothing_that_it_does_not_need(
    tmp_path: Path, changes: Mapping[str, str]
) -> None:
    """As the level `restricted` of the pod security standards asks, volumes of nodes apart."""
    for each in processors(made_of(tmp_path, changes)):
        pod = pod_of(each)
        security, own = pod["securityContext"], pod["containers"][0]["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False


def test_hosts_of_a_count_have_claims_that_one_pod_mounts(tmp_path: Path) -> None:
    made = made_of(tmp_path, CLAIMS)
    first, second = read(made, "StatefulSet")
    for each in (first, second):
        assert each["spec"]["replicas"] == 1
        (claim,) = each["spec"]["volumeClaimTemplates"]
        assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
        assert claim["spec"]["resources"]["requests"]["storage"] == "10240Mi"
        kept = each["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert set(kept.values()) == {"Retain"}
        assert pod_of(each)["securityContext"]["fsGroup"] == 10001
        stay = {each["key"] for each in pod_of(each)["tolerations"]}
        assert stay == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


def test_named_hosts_are_nodes_and_the_outbox_is_a_folder_there(tmp_path: Path) -> None:
    made = made_of(tmp_path, {**KUBERNETES, "/var/lib/edge": "/data/edge"})
    (each,) = read(made, "DaemonSet")
    pod = pod_of(each)
    assert pod["nodeSelector"] == {"edge.site": "osaka", "edge.replica": "gw-1"}
    hosts = {v["name"]: v["hostPath"] for v in pod["volumes"] if "hostPath" in v}
    assert hosts["outbox"] == {"path": "/data/edge", "type": "Directory"}
    assert "fsGroup" not in pod["securityContext"]
    assert read(made, "Service") == []


def test_an_update_never_has_two_writers(tmp_path: Path) -> None:
    (each,) = read(made_of(tmp_path, KUBERNETES), "DaemonSet")
    assert each["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (term,) = pod_of(each)["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    own = each["spec"]["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= own.items()
    assert term["topologyKey"] in pod_of(each)["nodeSelector"]
    for each in read(made_of(tmp_path, CLAIMS), "StatefulSet"):
        assert each["spec"]["updateStrategy"]["type"] == "RollingUpdate"


@pytest.mark.parametrize("changes", [CLAIMS, {**KUBERNETES, "[gw-1]": "[gw-1, gw-2]"}])
def test_nothing_is_shared_between_pods(tmp_path: Path, changes: Mapping[str, str]) -> None:
    workload = workload_of(tmp_path, changes)
    made = processors(manifests(workload))
    assert len(made) == 2
    replicas = []
    for each in made:
        variables = {v["name"]: v.get("value") for v in pod_of(each)["containers"][0]["env"]}
        replicas.append(variables["EDGE_REPLICA"])
        assert variables["EDGE_SITE"] == "osaka"
    assert replicas == [*workload.pipelines]
    names = [each["metadata"]["name"] for each in made]
    selectors = [json.dumps(each["spec"]["selector"]) for each in made]
    assert len(set(names)) == len(set(selectors)) == 2


def test_schedule_says_otherwise_where_it_is_written(tmp_path: Path) -> None:
    named = {**CLAIMS, "count: 2": "names: [gw-1], schedule: replica"}
    assert len(read(made_of(tmp_path, named), "StatefulSet")) == 1
    counted = {**KUBERNETES, "names: [gw-1]": "count: 2, schedule: daemon"}
    assert len(read(made_of(tmp_path, counted), "DaemonSet")) == 2


def test_probes_look_at_local_progress_and_outlast_a_predecessor(tmp_path: Path) -> None:
    (each,) = processors(made_of(tmp_path, KUBERNETES))
    (container,) = pod_of(each)["containers"]
    command = ["python3", "-I", "-S", "/app/edge/health.py"]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[name]["exec"]["command"] == command
    starts = container["startupProbe"]
    assert starts["periodSeconds"] * starts["failureThreshold"] > 90 + EVERY
    assert pod_of(each)["terminationGracePeriodSeconds"] == 60


def test_resources_are_those_of_the_site(tmp_path: Path) -> None:
    first, _ = processors(made_of(tmp_path, SITES["with everything"]))
    assert pod_of(first)["containers"][0]["resources"] == {
        "requests": {"cpu": "250m", "memory": "1024Mi"},
        "limits": {"memory": "1024Mi", "nvidia.com/gpu": 1},
    }
    assert pod_of(first)["nodeSelector"] == {"rack": "a", "kubernetes.io/arch": "arm64"}
    assert pod_of(first)["hostNetwork"] is True
    assert pod_of(first)["imagePullSecrets"] == [{"name": "registry"}]
    (claim,) = first["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "local"


def test_secrets_are_named_and_never_written(tmp_path: Path) -> None:
    made = made_of(tmp_path, SITES["with everything"])
    references = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in pod_of(processors(made)[0])["containers"][0]["env"]
        if "valueFrom" in variable
    }
    assert references == {
        "AWS_ACCESS_KEY_ID": {"name": "edge-osaka-aws", "key": "AWS_ACCESS_KEY_ID"},
        "AWS_SECRET_ACCESS_KEY": {"name": "edge-osaka-aws", "key": "AWS_SECRET_ACCESS_KEY"},
        "MQTT_PASSWORD": {"name": "edge-osaka", "key": "MQTT_PASSWORD"},
    }
    assert read(made, "Secret") == []
    assert "edge-secret" not in made.text()


def test_a_change_of_a_definition_makes_another_configmap_and_so_other_pods(
    tmp_path: Path,
) -> None:
    changes = {**CLAIMS, "stop_timeout": "kubernetes: {definitions: configmap}\nstop_timeout"}
    made = made_of(tmp_path, changes)
    (definitions,) = read(made, "ConfigMap")
    assert definitions["data"] == {"press.yaml": PIPELINE}
    assert definitions["immutable"] is True
    (mounted,) = [
        mount
        for mount in pod_of(processors(made)[0])["containers"][0]["volumeMounts"]
        if mount["name"] == "definitions"
    ]
    assert mounted["mountPath"] == "/pipelines"

    other = made_of(tmp_path, changes, PIPELINE.replace("> 80", "> 90"))
    assert read(other, "ConfigMap")[0]["metadata"]["name"] != definitions["metadata"]["name"]
    assert processors(other) != processors(made)


def test_the_role_allows_what_the_pipelines_ask_and_only_to_their_pods(tmp_path: Path) -> None:
    provider = "oidc.eks.eu-west-1.amazonaws.com/id/A1"
    changes = {
        **CLAIMS,
        "stop_timeout": f"kubernetes: {{oidc_provider: {provider}}}\nstop_timeout",
    }
    made = made_of(tmp_path, changes)
    (account,) = read(made, "ServiceAccount")
    role = "arn:aws:iam::123456789012:role/edge-osaka-task"
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": role}

    (statement,) = made.policies["edge-osaka-task.trust.json"]["Statement"]
    assert statement["Principal"]["Federated"].endswith(f":oidc-provider/{provider}")
    assert statement["Condition"]["StringEquals"] == {
        f"{provider}:sub": "system:serviceaccount:edge:edge-osaka",
        f"{provider}:aud": "sts.amazonaws.com",
    }
    allowed = made.policies["edge-osaka-task.policy.json"]["Statement"]
    assert [each["Resource"] for each in allowed] == [
        "arn:aws:s3:::plant-lake/readings/osaka/press/lake/*",
        "arn:aws:sqs:eu-west-1:123456789012:plant-alarms",
    ]


def test_pod_identity_needs_no_annotation_and_trusts_one_service_account(tmp_path: Path) -> None:
    identity = "kubernetes: {identity: pod-identity, namespace: plants}\nstop_timeout"
    made = made_of(tmp_path, {**CLAIMS, "stop_timeout": identity})
    assert "annotations" not in read(made, "ServiceAccount")[0]["metadata"]
    (statement,) = made.policies["edge-osaka-task.trust.json"]["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {
        "aws:RequestTag/kubernetes-namespace": "plants",
        "aws:RequestTag/kubernetes-service-account": "edge-osaka",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({'account: "123456789012"\n': ""}, "account: is missing; the ARN of the pods' role has"),
        (
            {"stop_timeout": "kubernetes: {storage: 1GiB}\nstop_timeout"},
            "kubernetes.storage: must have room for the outboxes, at least 2147483648 B, got",
        ),
    ],
)
def test_what_pipelines_ask_and_the_site_has_not_is_refused(
    tmp_path: Path, changes: Mapping[str, str], words: str
) -> None:
    workload = workload_of(tmp_path, {**CLAIMS, **changes})
    with pytest.raises(DefinitionError) as raised:
        manifests(workload)
    (line,) = str(raised.value).splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("press line.yaml", 0, "pipelines.0: must be letters, digits, '.', '_' and '-', got"),
        (
            "press.yaml",
            2**20 - 2**13,
            "kubernetes.definitions: 'configmap' has room for 1 MiB; put",
        ),
    ],
)
def test_definitions_that_no_configmap_can_have_are_refused(
    tmp_path: Path, name: str, size: int, words: str
) -> None:
    changes = {
        **CLAIMS,
        "[press.yaml]": f'["{name}"]',
        "stop_timeout": "kubernetes: {definitions: configmap}\nstop_timeout",
    }
    (tmp_path / name).write_text(PIPELINE)
    site = make(tmp_path, changes, PIPELINE + "#" * size)
    with pytest.raises(DefinitionError) as raised:
        manifests(load_workload(site))
    (line,) = str(raised.value).splitlines()
    assert words in line


def test_every_field_that_the_cluster_takes_otherwise_is_noted(tmp_path: Path) -> None:
    noted = {note.field for note in notes(workload_of(tmp_path, SITES["on nodes"]))}
    assert noted == {
        "cluster",
        "hosts",
        "kubernetes.identity",
        "logs",
        "mounts",
        "outbox",
        "resources.cpu",
        "secrets",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make(tmp_path, {**CLAIMS, "stop_timeout": LATER})
    return tmp_path / "osaka.yaml"


def test_plan_prints_what_kubectl_takes_and_asks_nothing_of_aws(
    aws: Aws, edge: Edge, file: Path
) -> None:
    done = edge("deploy", "plan", file)
    assert done.code == 0
    assert [each["kind"] for each in yaml.safe_load_all(done.out)] == [
        "ServiceAccount",
        "Service",
        "StatefulSet",
        "StatefulSet",
    ]
    assert "note outbox: a ReadWriteOncePod claim of 10GiB each (Kubernetes 1.29)\n" in done.err
    assert "promise link away: the processor goes on and buffers" in done.err
    shown = json.loads(edge("deploy", "plan", file, "--json").out)
    assert shown["objects"] == [*yaml.safe_load_all(done.out)]
    assert {*shown} == {"site", "objects", "policies", "notes", "promises"}
    assert not aws.cloud.calls


def test_plan_writes_manifests_apart_from_policies(edge: Edge, file: Path) -> None:
    folder = file.parent / "out"
    assert edge("deploy", "plan", file, "--out", folder).code == 0
    (manifest,) = (each for each in folder.iterdir() if each.is_file())
    assert manifest.read_text() == edge("deploy", "plan", file).out
    policies = sorted(each.name for each in (folder / "aws").iterdir())
    assert policies == ["edge-osaka-task.policy.json"]


COMMANDS: Sequence[tuple[str, str]] = [
    ("apply", "plan {file} --out DIR`, then run `kubectl apply -f DIR`"),
    ("status", "`kubectl -n plants get pods -l edge.site=osaka -o wide`"),
    ("logs", "`kubectl -n plants logs -l edge.site=osaka --prefix --since 1h`"),
    ("destroy", "plan {file} --out DIR`, then run `kubectl delete -f DIR`"),
]


@pytest.mark.parametrize(("command", "words"), COMMANDS)
def test_what_kubectl_does_is_left_to_it_with_the_command(
    aws: Aws, edge: Edge, file: Path, command: str, words: str
) -> None:
    done = edge("deploy", command, file)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.endswith(words.format(file=file) + "\n")
    assert not aws.cloud.calls


def test_manifests_of_another_target_are_refused(edge: Edge, tmp_path: Path) -> None:
    make(tmp_path)
    done = edge("deploy", "plan", tmp_path / "osaka.yaml", "--out", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--out: is for manifests of target kubernetes; leave it out" in done.err
