"""Make AWS what a site file says; cut off anywhere, the next run goes on with what is left."""

from collections.abc import Callable

from edge.deploy.account import Account, told
from edge.deploy.instances import by_replica
from edge.deploy.plan import Change, Stock, difference, missing_image, problems, stock_of
from edge.deploy.resources.tasks import Service
from edge.deploy.workload import Workload
from edge.errors import DeployFailed


def apply(account: Account, workload: Workload, tell: Callable[[Change], None]) -> Stock:
    """Do what is left to do, resource after resource; tell: called before each change.

    Where nothing differs nothing is written. Raises DeployFailed.
    """
    stock = stock_of(account, workload)
    if found := list(problems(account, stock)):
        raise DeployFailed("\n".join(found))
    with told("hosts"):
        by_replica(account)  # refuses two of one replica
    for former in stock.former:  # first, as its host may have become another replica
        tell(Change(former, "remove", (), ()))
        with told(str(former)):
            former.remove()
    asked = False
    for resource in stock.made:
        if change := difference(resource):
            if isinstance(resource, Service) and not asked:
                asked = True  # a task without its image only fails, again and again
                if missing := missing_image(account):
                    raise DeployFailed(missing)
            tell(change)
            with told(str(resource)):
                if change.action == "create":
                    resource.create()
                else:
                    resource.update(change.settings)
    return stock


def destroy(stock: Stock, data: bool, tell: Callable[[str], None]) -> None:
    """Remove what was made for the site, last first; with `data` also what holds some.

    What is on the hosts stays there. Raises DeployFailed.
    """
    for resource in (*stock.former, *reversed(stock.made)):
        with told(str(resource)):
            if not resource.is_ours():
                continue
            if resource.data and not data:
                tell(f"keeps {resource}, which holds data")
                continue
            tell(f"removes {resource}")
            resource.remove()
