"""What a site needs in AWS, beside what is there: the difference, and nothing changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from edge.deploy import guarantees, instances, roles
from edge.deploy.account import Account, told
from edge.deploy.difference import lines
from edge.deploy.resources import Resource
from edge.deploy.resources.access import Role
from edge.deploy.resources.alarm import alarms_of, former_alarms
from edge.deploy.resources.bucket import Bucket
from edge.deploy.resources.ground import Cluster, LogGroup, Repository
from edge.deploy.resources.queue import Queue, dead_letters
from edge.deploy.resources.tasks import Definition, Service, former_services
from edge.deploy.workload import Workload


class Change(NamedTuple):
    """What is to be done to one resource; lines: settings that go (`- `) and come (`+ `)."""

    resource: Resource
    action: Literal["create", "update", "remove"]
    settings: Sequence[str]
    lines: Sequence[str]


class Plan(NamedTuple):
    """What `apply` would do. problems: what it would refuse to begin with."""

    changes: Sequence[Change]
    problems: Sequence[str]
    notes: Sequence[guarantees.Note]
    hosts: Mapping[str, instances.Instance]


class Stock(NamedTuple):
    """What a site consists of. made: in the order in which each needs those before it.

    needed: what must be there, with the word of `create` that would have it made.
    """

    made: Sequence[Resource]
    needed: Sequence[tuple[Resource, str]]
    former: Sequence[Resource] = ()
    """Services of hosts that are named no more, alarms that are asked for no more."""

    def services(self) -> Mapping[str, Service]:
        """The services, by replica."""
        return {each.replica: each for each in self.made if isinstance(each, Service)}


def stock_of(account: Account, workload: Workload) -> Stock:
    """Everything that the site file and its pipelines name."""
    site, home = account.site, account.home
    made: list[Resource] = []
    needed: list[tuple[Resource, str]] = []
    image = roles.repository_of(site.image)
    if image and (image.account, image.region) == (home.account, home.region):
        _sort(Repository(account, image.name), "repository", account, made, needed)
    for name in _named(workload, home, "sqs"):
        dead = Queue(account, dead_letters(name))
        if "queues" in site.create:
            made.append(dead)
        _sort(Queue(account, name, dead), "queues", account, made, needed)
    for name in _named(workload, home, "s3"):
        _sort(Bucket(account, name), "buckets", account, made, needed)
    if site.logs.driver == "awslogs":
        made.append(LogGroup(account, site.log_group(), site.logs.retention.days))
    made.append(Role(account, roles.task_role(site), roles.task_policy(workload, home)))
    made.append(Role(account, roles.execution_role(site), roles.execution_policy(site, home)))
    made.append(Cluster(account, site.cluster))
    definitions = {each: Definition(account, workload, each) for each in workload.pipelines}
    made += definitions.values()
    made += [Service(account, each, replica) for replica, each in definitions.items()]
    alarms = alarms_of(account, workload)
    made += alarms
    with told("services"):
        services = former_services(account, [each.name for each in definitions.values()])
    with told("alarms"):
        gone = former_alarms(account, [each.name for each in alarms])
    return Stock(made, needed, [*services, *gone])


def make_plan(account: Account, workload: Workload) -> Plan:
    """Compare; reads only. Raises DeployFailed where AWS does not answer."""
    stock = stock_of(account, workload)
    changes = [Change(each, "remove", (), ()) for each in stock.former]
    changes += [change for each in stock.made if (change := difference(each))]
    with told("hosts"):
        hosts = instances.by_replica(account)
    return Plan(changes, list(problems(account, stock)), guarantees.notes(workload), hosts)


def difference(resource: Resource) -> Change | None:
    """What is to be done to one resource; None if it is as it should be."""
    with told(str(resource)):
        found = resource.read()
        wanted = resource.wanted()
    if found is None:
        return Change(resource, "create", list(wanted), [*lines({}, wanted)])
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if not changed:
        return None
    before = {name: found.get(name) for name in changed}
    return Change(resource, "update", changed, [*lines(before, {n: wanted[n] for n in changed})])


def problems(account: Account, stock: Stock) -> Iterator[str]:
    """What must be there and is not, or cannot be made."""
    yield from _foreign_repository(account)
    for resource, word in stock.needed:
        with told(str(resource)):
            if resource.read() is None:
                yield f"{resource}: is not there; make it, or add `{word}` to `create`"


def _foreign_repository(account: Account) -> Iterator[str]:
    """What to say of a repository that is to be made, and is not of this account and region."""
    site, home = account.site, account.home
    image = roles.repository_of(site.image)
    if "repository" not in site.create or image is None:
        return
    if (image.account, image.region) != (home.account, home.region):
        yield (
            f"image {site.image}: its repository cannot be made by account {home.account} in"
            f" {home.region}; correct `image`, or take `repository` out of `create`"
        )


def missing_image(account: Account) -> str | None:
    """What to say where the image is not in its repository; None if it is, or cannot be known."""
    image = roles.repository_of(account.site.image)
    home = account.home
    if image is None or (image.account, image.region) != (home.account, home.region):
        return None
    with told(f"image {account.site.image}"):
        if Repository(account, image.name).has(image.version):
            return None
    return (
        f"image {account.site.image}: is not in its repository; build and push it with"
        f" `edge image build --push --tag {account.site.image}`, and apply again"
    )


def _sort(
    resource: Resource,
    word: str,
    account: Account,
    made: list[Resource],
    needed: list[tuple[Resource, str]],
) -> None:
    if word in account.site.create:
        made.append(resource)
    else:
        needed.append((resource, word))


def _named(workload: Workload, home: roles.Home, service: str) -> Sequence[str]:
    """Queues or buckets of this account that parts ask for, by name."""
    found = []
    for permission in workload.permissions():
        parts = home.fill(permission.resource).split(":", 5)
        if len(parts) < 6 or parts[2] != service:  # `*` is no ARN
            continue
        _, _, _, region, account, name = parts
        ours = (region or home.region, account or home.account) == (home.region, home.account)
        if ours and not name.startswith("accesspoint/"):
            found.append(name.partition("/")[0])
    return list(dict.fromkeys(found))
