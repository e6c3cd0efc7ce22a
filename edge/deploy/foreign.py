"""What other containers have and a processor must not: the remedy for each, by its usual names."""

from collections.abc import Mapping

_INBOUND = "has nothing to lead to: a processor opens connections and takes none; leave it out"
_ONE_WRITER = (
    "would run two processors on one outbox; leave it out, the old task always stops before the"
    " new one starts"
)

FOREIGN: Mapping[str, str] = {
    "load_balancer": _INBOUND,
    "load_balancers": _INBOUND,
    "ports": _INBOUND,
    "service_discovery": _INBOUND,
    "service_registries": _INBOUND,
    "service_connect": _INBOUND,
    "app_mesh": _INBOUND,
    "autoscaling": _ONE_WRITER,
    "blue_green": _ONE_WRITER,
    "deployment": _ONE_WRITER,
    "minimum_healthy_percent": _ONE_WRITER,
    "maximum_percent": _ONE_WRITER,
    "ebs": "cannot be attached here; mount the disk on the host and name its folder in `outbox`",
    "nfs": "is mounted on the host; name the folder in `mounts`, and never put the outbox on it",
    "volumes": "is not an option; name folders of the host in `mounts`, EFS in `efs`",
    "privileged": "is never needed; leave it out",
    "replicas": "is not an option; name the hosts in `hosts.names`, each runs one processor",
    "replica": "is not an option; name the hosts in `hosts.names`, each is a replica",
    "restart": "is not an option; the task restarts in place after 60 s at the earliest",
    "environment_files": "are not read; write `environment`, and `secrets` by ARN",
    "placement_strategy": "has nothing to choose: each host of `hosts.names` runs one processor",
    "sidecars": "are not deployed: a task is one processor",
    "containers": "are not an option: a task is one processor",
    "health_check": "is that of the image: progress on the host, never the link; leave it out",
    "network_mode": "is not an option; write `network: {mode: bridge}`",
    "launch_type": "is not an option; write `target: ecs-anywhere`, `ec2` or `fargate`",
    "bucket": "is named by the pipelines; leave it out, and list `buckets` in `create`",
    "queue": "is named by the pipelines; leave it out, and list `queues` in `create`",
    "user": "is that of the image; leave it out",
    "command": "is `edge run` with the pipelines; leave it out",
    "role": "is computed from the pipelines; leave it out",
    "task_role": "is computed from the pipelines; leave it out",
}
