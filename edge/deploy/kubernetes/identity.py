"""The AWS role of the pods of a site: what it allows, and who may take it."""

from collections.abc import Iterator, Mapping
from typing import Any

from edge.deploy import roles
from edge.deploy.site import Site
from edge.deploy.workload import Workload

Object = Mapping[str, Any]


def home(site: Site) -> roles.Home:
    """Where the site's resources are, as far as the site file says."""
    partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
    found = [name for start, name in partition.items() if site.region.startswith(f"{start}-")]
    return roles.Home(found[0] if found else "aws", site.region, site.account or "*")


def policies(workload: Workload) -> Iterator[tuple[str, Object]]:
    """What `aws iam put-role-policy` and `create-role` take."""
    site = workload.site
    role = roles.task_role(site)
    if policy := roles.task_policy(workload, home(site)):
        yield f"{role}.policy.json", policy
        if trust := _trust(site):
            yield f"{role}.trust.json", trust


def _trust(site: Site) -> Object | None:
    """Who may take the role: the service account of this site and no other."""
    kube = site.kubernetes
    if kube.identity == "pod-identity":
        tags = {"namespace": kube.namespace, "service-account": f"edge-{site.site}"}
        claims = {f"aws:RequestTag/kubernetes-{name}": value for name, value in tags.items()}
        statement: Object = {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {"StringEquals": claims},
        }
    elif kube.identity == "irsa" and kube.oidc_provider:
        provider = home(site).arn("iam", f"oidc-provider/{kube.oidc_provider}", "")
        who = f"system:serviceaccount:{kube.namespace}:edge-{site.site}"
        claims = {
            f"{kube.oidc_provider}:sub": who,
            f"{kube.oidc_provider}:aud": "sts.amazonaws.com",
        }
        statement = {
            "Effect": "Allow",
            "Principal": {"Federated": provider},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": claims},
        }
    else:
        return None
    return {"Version": "2012-10-17", "Statement": [statement]}
