"""The objects of a site as kubectl takes them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import edge
from edge.deploy import roles
from edge.deploy.kubernetes.identity import Object, home, policies
from edge.deploy.kubernetes.pod import labels, pod
from edge.deploy.kubernetes.rules import pinned, workload_faults
from edge.deploy.site import Site
from edge.deploy.workload import Workload
from edge.errors import DefinitionError


class Manifests(NamedTuple):
    """objects: in the order in which they are applied; policies: by the file that they go to."""

    site: Site
    objects: Sequence[Object]
    policies: Mapping[str, Object]

    def text(self) -> str:
        """All objects as YAML documents."""
        import yaml

        head = (
            f"# Made by edge {edge.__version__} of site {self.site.site}: change the site file.\n"
        )
        return head + yaml.dump_all(
            self.objects, Dumper=_dumper(), sort_keys=False, explicit_start=True, width=100
        )

    def write(self, folder: Path) -> list[Path]:
        """The objects as one file, the policies below `aws`, where `kubectl apply -f` sees none."""
        wanted = {folder / f"edge-{self.site.site}.yaml": self.text()}
        for name, policy in self.policies.items():
            wanted[folder / "aws" / name] = json.dumps(policy, indent=2) + "\n"
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(wanted)


def manifests(workload: Workload) -> Manifests:
    """What runs the site. Raises DefinitionError for what pipelines and cluster do not share."""
    if found := list(workload_faults(workload)):
        raise DefinitionError(*found)
    site = workload.site
    definitions = _definitions(site) if site.kubernetes.definitions == "configmap" else None
    objects: list[Object] = [_account(workload)]
    if definitions:
        objects.append(definitions)
    if not pinned(site):
        objects.append(_service(site))
    name = str(definitions["metadata"]["name"]) if definitions else None
    objects += [_processor(workload, replica, name) for replica in workload.pipelines]
    return Manifests(site, objects, dict(policies(workload)))


def _metadata(site: Site, name: str, own: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "namespace": site.kubernetes.namespace, "labels": dict(own)}


def _of_site(site: Site) -> dict[str, str]:
    return {"app.kubernetes.io/name": "edge", "edge.site": site.site}


def _account(workload: Workload) -> Object:
    site = workload.site
    metadata = _metadata(site, f"edge-{site.site}", _of_site(site))
    if workload.permissions() and site.kubernetes.identity == "irsa":
        role = home(site).arn("iam", f"role/{roles.task_role(site)}", "")
        metadata["annotations"] = {"eks.amazonaws.com/role-arn": role}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }


def _definitions(site: Site) -> Object:
    """Under a name of its content, so that a change starts pods anew and a roll-back finds it."""
    data = {path.name: (site.folder / path).read_text() for path in site.pipelines}
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(site, f"edge-{site.site}-{digest}", _of_site(site)),
        "immutable": True,
        "data": data,
    }


def _service(site: Site) -> Object:
    """Without an address: a StatefulSet must name one, and nothing connects to a processor."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(site, f"edge-{site.site}", _of_site(site)),
        "spec": {"clusterIP": "None", "selector": _of_site(site)},
    }


def _processor(workload: Workload, replica: str, definitions: str | None) -> Object:
    site = workload.site
    own = labels(site, replica)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": own},
        "template": pod(workload, replica, definitions),
    }
    if pinned(site):
        update = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
        spec |= {"updateStrategy": update}
    else:
        spec |= {
            "replicas": 1,
            "serviceName": f"edge-{site.site}",
            # Its old pod has ended before the new one starts. With `OrderedReady` a pod that never
            # becomes ready would keep the revision that mends it from coming.
            "updateStrategy": {"type": "RollingUpdate"},
            "podManagementPolicy": "Parallel",
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": "Retain",
                "whenScaled": "Retain",
            },
            "volumeClaimTemplates": [_claim(site)],
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet" if pinned(site) else "StatefulSet",
        "metadata": _metadata(site, site.service(replica), own),
        "spec": spec,
    }


def _claim(site: Site) -> Object:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": f"{-(-site.kubernetes.storage // 2**20)}Mi"}},
    }
    if site.kubernetes.storage_class:
        spec["storageClassName"] = site.kubernetes.storage_class
    return {"metadata": {"name": "outbox", "labels": _of_site(site)}, "spec": spec}


def _dumper() -> Any:
    """Text of several lines stays readable, and what is used twice is written twice."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
