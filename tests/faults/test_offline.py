"""A week without a link, against the cap, under every policy; then the drain."""

from pathlib import Path

from tests.offline import Plan, play, shares

WEEK = Plan(7, 1.6, "block", "all")


def test_a_week_offline_blocks_the_source_and_loses_nothing(tmp_path: Path) -> None:
    report = play(WEEK, tmp_path)
    assert (report.faults, report.missing, report.losses) == ([], [], [])
    assert report.missing_changes == []
    firsts = [first for send in report.sends for first in send]
    assert firsts == sorted(firsts)


def test_a_week_offline_drops_the_oldest_and_says_how_many(tmp_path: Path) -> None:
    report = play(WEEK._replace(when_full="drop_oldest", order="none"), tmp_path)
    assert report.faults == []
    assert report.missing_changes == []  # of high priority
    dropped = report.ledger["sink:lake"]["dropped"]
    assert dropped == len(report.missing) > 0
    assert sum(loss["rows"] for loss in report.losses) == dropped
    assert {loss["kind"] for loss in report.losses} == {"dropped"}
    kept = [n for n in range(WEEK.readings) if n % 50 != 49]
    assert report.missing == kept[:dropped]

    taken = shares(report.sends)
    newest = sum(new for new, _ in taken) / sum(new + old for new, old in taken)
    assert len(taken) > 10
    assert 0.6 < newest < 0.8


def test_a_week_offline_drops_the_newest_and_says_how_many(tmp_path: Path) -> None:
    report = play(WEEK._replace(when_full="drop_newest", order="key"), tmp_path)
    assert report.faults == []
    dropped = report.ledger["sink:lake"]["dropped"]
    urgent = report.ledger["sink:changes"].get("dropped", 0)
    assert dropped == len(report.missing) > 0
    assert urgent == len(report.missing_changes)
    assert sum(loss["rows"] for loss in report.losses) == dropped + urgent
    # Of high priority: it goes on for as long as there is room for it alone.
    first = report.missing[0]
    assert not [n for n in report.missing_changes if n < first + (WEEK.readings - first) / 2]
    firsts = [first for send in report.sends for first in send]
    assert firsts == sorted(firsts)
