"""What came of the parts of one send, as one receipt."""

from collections.abc import Iterable, Sequence

from edge.aws import Verdict
from edge.errors import LinkDown
from edge.outbox.model import Divided, Parcel
from edge.sinks import Receipt


def receipt_for(verdict: Verdict, parcels: Sequence[Parcel]) -> Receipt:
    """The receipt of parcels whose call failed. Raises LinkDown for what passes by itself."""
    if verdict.fate == "again":
        raise LinkDown(verdict.problem)
    if verdict.fate == "never":
        return Receipt(refused={parcel.id: verdict.problem for parcel in parcels})
    return Receipt(problem=verdict.problem)


def join(parts: Iterable[Receipt | BaseException]) -> Receipt:
    """One receipt of several. Raises LinkDown when one part did and nothing at all was settled.

    Any other error among them is raised: the parcels go again, and repeats do no harm.
    """
    delivered: list[int] = []
    refused: dict[int, str] = {}
    rekey: list[int] = []
    problems: list[str] = []
    divided: dict[int, Divided] = {}
    down = ""
    for part in parts:
        if isinstance(part, Receipt):
            delivered += part.delivered
            refused |= part.refused
            rekey += part.rekey
            divided |= part.divided
            problems += [part.problem] if part.problem else []
        elif isinstance(part, LinkDown):
            down = str(part)
        else:
            raise part
    if down:
        if not (delivered or refused or rekey or divided):
            raise LinkDown(down)
        problems.append(down)
    problem = problems[0] if problems else None
    return Receipt(tuple(delivered), refused, tuple(rekey), problem, divided)
