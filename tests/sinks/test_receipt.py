"""What several receipts are together."""

import pytest

from edge.aws import Verdict
from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Receipt
from edge.sinks.receipt import join, receipt_for

PARCEL = Parcel("key", 1, 1, 1, b"", id=7)


def test_what_was_settled_is_kept_when_the_rest_is_down() -> None:
    assert join([Receipt([1]), LinkDown("no way"), Receipt(refused={2: "bad"})]) == Receipt(
        (1,), {2: "bad"}, (), "no way"
    )


def test_nothing_settled_and_down_is_link_down() -> None:
    with pytest.raises(LinkDown, match="no way"):
        join([Receipt(problem="denied"), LinkDown("no way")])


def test_an_unforeseen_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        join([Receipt([1]), ZeroDivisionError()])


def test_a_verdict_settles_only_what_can_never_go() -> None:
    assert receipt_for(Verdict("never", "parcel", "bad"), [PARCEL]) == Receipt(refused={7: "bad"})
    assert receipt_for(Verdict("blocked", "access", "no"), [PARCEL]) == Receipt(problem="no")
    with pytest.raises(LinkDown, match="away"):
        receipt_for(Verdict("again", "link", "away"), [PARCEL])
