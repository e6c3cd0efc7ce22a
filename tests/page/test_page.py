"""The live page in a real browser: what it says, that it keeps up, that everybody can read it."""

import hashlib
import json
import os
import random
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser

from edge.dashboard.page import CHART, find
from tests.broker import Broker
from tests.page import states
from tests.page.browser import CHROMIUM, DESK, PHONE, chromium, looking
from tests.page.told import State, telling
from tests.ports import free_port
from tests.processor import Processor, until
from tests.proxy import Proxy

FOLDER = Path(states.__file__).parents[2] / "edge" / "dashboard" / "page"
NAMES = sorted(file.name for file in FOLDER.iterdir() if file.suffix not in (".py", ""))

DEFINITION = """
edge: 1
name: press
source:
  dataset: {path: in/*.ndjson, follow: true, settle: 100ms}
record:
  time: ts
  key: device
  fields: {ts: timestamp_ms, device: str, temp: float, note: optional str}
outbox: {max_size: 32MiB}
sinks:
  there:
    mqtt: {url: URL, topic: "there/{device}", password: hunter2hunter2, username: edge}
    roll: {size: 1KiB, every: 100ms}
"""


TRIES = 5  # cuts, of which one must be shown in time: the machine may be busy with other things

SEARCH = """
(words) => {
  const search = document.getElementById("search");
  search.value = words;
  search.dispatchEvent(new Event("input"));
  return document.getElementById("keys").innerText;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not os.path.exists(CHROMIUM):
        pytest.skip("chromium is not installed; run make chromium")
    with chromium() as browser:
        yield browser


class Plant(NamedTuple):
    """A real processor with its page, and a way to its broker that can be cut."""

    folder: Path
    url: str
    way: Proxy
    processor: Processor

    def write(self, number: int, temp: float = 20.0, rows: int = 1, note: int = 0) -> None:
        """One more file; note: random bytes in each of its rows."""
        row = {"ts": 1_700_000_000_000 + number, "device": "press-4", "temp": temp}
        part = self.folder / "in" / "row.part"
        with part.open("w") as lines:
            for _ in range(rows):
                lines.write(json.dumps(row | {"note": random.randbytes(note).hex()}) + "\n")
        part.rename(self.folder / "in" / f"{number:03}.ndjson")

    def noted_down(self) -> float:
        """When the processor found the link down for the last time, unix seconds."""
        timeline = self.state()["links"]["there"]["timeline"]
        downs = [after for before, after in pairwise(timeline) if before["state"] == "up"]
        return float(downs[-1]["at"])

    def state(self) -> Any:
        with urllib.request.urlopen(f"{self.url}state", timeout=60) as answer:
            return json.load(answer)["pipelines"][0]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    (tmp_path / "in").mkdir()
    file, port = tmp_path / "press.yaml", free_port()
    with Broker(tmp_path / "broker") as broker, Proxy(("127.0.0.1", broker.port)) as way:
        file.write_text(DEFINITION.replace("URL", f"mqtt://127.0.0.1:{way.port}"))
        address = f"127.0.0.1:{port}"
        yield Plant(tmp_path, f"http://{address}/", way, Processor(file, "--http", address))


def answers(plant: Plant) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return bool(plant.state())
        except OSError:
            return False

    return look


def test_it_shows_a_link_that_is_cut_and_that_comes_back(browser: Browser, plant: Plant) -> None:
    plant.write(1)
    with plant.processor.running():
        until(answers(plant))
        with looking(browser, plant.url) as view:
            view.until("Delivered 1 row", at="#sinks")
            view.until("All is well")
            assert "hunter2hunter2" not in view.page.content()
            took = []
            for number in range(2, 2 + TRIES):
                shown = view.notes_when("Nothing gets through to there (MQTT)")
                plant.way.set("refuse")
                plant.write(number)
                view.until("Is data lost? No. 1 row waits on this machine's disk")
                took.append(shown() - plant.noted_down())
                plant.way.set("up")
                view.until("All is well")
                view.until(f"Delivered {number} rows", at="#sinks")
                if took[-1] < 2:
                    break
            assert 0 <= min(took) < 2, "seconds from what the processor noted to what is shown"


def test_it_tells_that_intake_waits_for_room(browser: Browser, plant: Plant) -> None:
    plant.way.set("refuse")
    plant.write(1, temp=40)
    with plant.processor.running():
        until(lambda: answers(plant)() and plant.state()["links"]["there"]["state"] == "down")
        plant.write(2, rows=120, note=2**18)
        until(lambda: plant.state()["outbox"]["full"])
        with looking(browser, plant.url) as view:
            view.until("The outbox is full", "nothing gets through to there (MQTT)", "Not here:")


def test_it_outlives_the_processor_and_goes_on_with_the_next_one(
    browser: Browser, plant: Plant
) -> None:
    with ExitStack() as life:
        plant.write(1)
        life.enter_context(plant.processor.running())
        until(answers(plant))
        with looking(browser, plant.url) as view:
            view.until("press-4", at="#keys")
            view.expects_silence = True
            life.close()
            said = view.until("The processor does not answer")
            assert "Nothing that it had acknowledged: that is on its disk" in said
            assert view.violations() == []
            plant.write(2, temp=31.5)
            life.enter_context(plant.processor.running())
            view.until("All is well")
            view.until("31.5", at="#keys")
            view.until("live", at="#connection")


def test_who_may_not_look_any_more_is_told_so(browser: Browser) -> None:
    with telling(states.calm()) as told, looking(browser, told.url) as view:
        view.expects_silence = True
        told.refuse()
        view.until("The processor answers, but does not let this page look", "with its token again")


WORDS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "calm": (states.calm, ["All is well", "every one is accounted for"]),
    "link down": (
        states.link_down,
        [
            "Nothing gets through to away (MQTT).",
            "4 min ago",
            "No. 3,412 rows wait on this machine's disk. At this pace there is room for 2 d 4 h",
            "Check the network of this machine",
            "EndpointConnectionError",
        ],
    ),
    "rubbish": (
        states.rubbish,
        [
            "The device behind plant/line-1/press-7/temperature sends what cannot be read: "
            "payload is not JSON.",
            "2 min ago",
            "Yes, from this device: 412 messages gave no rows.",
            "Look at that device",
        ],
    ),
    "nearly full": (
        states.nearly_full,
        [
            "The outbox is nearly full (93 % of 64 MiB), because nothing gets through to away",
            "full in 24 min",
            "No. When it is full nothing more is read",
            "raise outbox.max_size",
            "Also: Nothing gets through",
        ],
    ),
    "unbalanced": (states.unbalanced, ["The accounts do not balance at sink:lake", "Perhaps."]),
    "empty": (states.empty, ["All is well. No row has come yet."]),
    "large": (states.large, ["All is well"]),
    "several": (states.several, ["All is well", "hall-climate: Nothing gets through to away"]),
}


AXE = ("link down", "rubbish", "empty", "several")  # light, dark and phone; the others add nothing


@pytest.mark.parametrize("name", [*WORDS])
def test_its_first_sentence_says_what_is_wrong_and_everybody_can_read_it(
    browser: Browser, name: str
) -> None:
    make, words = WORDS[name]
    number = [*WORDS].index(name)
    scheme, size = ("light", "dark")[number % 2], (DESK, PHONE)[number // 2 % 2]
    with (
        telling(make()) as told,
        looking(browser, told.url, scheme=scheme, size=size) as view,
    ):
        said = view.text()
        assert [word for word in words if word not in said] == [], said
        if name in AXE:
            view.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert view.violations() == []
        wide = view.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"], "it scrolls sideways"


def test_what_somebody_types_stays_while_states_come(browser: Browser) -> None:
    state = states.large(300)
    with telling(state) as told, looking(browser, told.url) as view:
        search = view.page.locator("#search")
        search.focus()
        search.press_sequentially("press-27")
        view.until("11 of 300 keys", at="#newest")
        view.page.evaluate("window.before = document.activeElement")
        after = deepcopy(state)
        states.pipeline(after)["ledger"][0]["left"]["read"] = 777_777
        told.tell(after)
        view.until("777,777", at="#figures")
        assert view.page.evaluate("document.activeElement === window.before")
        assert search.input_value() == "press-27"
        assert view.text("#found") == "11 of 300 keys"


def test_of_five_thousand_keys_only_those_in_view_are_in_the_page(browser: Browser) -> None:
    with telling(states.large(5000)) as told, looking(browser, told.url) as view:
        view.until("5,000 of 5,000 keys", at="#newest")
        lines = view.page.locator("#keys [role=row]")
        assert lines.count() < 40
        view.page.locator("#keys .table").evaluate("table => { table.scrollTop = 1e7 }")
        view.until("press-4999", at="#keys")
        assert lines.count() < 40
        assert "press-4711" in view.page.evaluate(SEARCH, "press-4711")
        assert view.text("#found") == "1 of 5,000 keys"


def test_a_value_far_off_its_line_is_marked(browser: Browser) -> None:
    state = states.calm()
    states.pipeline(state)["newest"]["rows"][1]["spark"][-1] = 95.0
    with telling(state) as told, looking(browser, told.url) as view:
        assert view.page.locator("#keys .odd [role=rowheader]").all_inner_texts() == ["press-1"]


def test_a_line_goes_on_with_the_points_that_are_new(browser: Browser) -> None:
    state = states.calm()
    before = states.pipeline(state)["newest"]["rows"][1]
    new = [19.5, 24.5]
    later, anew = deepcopy(state), deepcopy(state)
    later["partial"] = True
    row = before | {"values": {"temp": new[-1], "status": "later"}, "spark": new}
    states.pipeline(later)["newest"]["rows"] = [row]
    row = before | {"values": {"status": "anew"}, "spark": [*before["spark"][len(new) :], *new]}
    states.pipeline(anew)["newest"]["rows"][1] = row
    with telling(state) as told, looking(browser, told.url) as view:
        lines = view.page.locator("#keys .lines [role=row]")
        drawn = lines.filter(has_text="press-1").locator("path")
        first = drawn.get_attribute("d")
        told.tell(later)
        view.until("later", at="#keys")
        longer = drawn.get_attribute("d")
        assert lines.count() == 3
        told.tell(anew)
        view.until("anew", at="#keys")
        assert drawn.get_attribute("d") == longer != first


AXES = """
async () => {
  const { amounts, hours } = await import("/page/outbox.js");
  const noon = new Date(2026, 0, 1, 12).getTime() / 1000;
  const times = [[0, 15], [0, 60]].map((all) => hours(all.map((after) => noon + after)));
  const numbers = [[0, 500], [0, 2500, 7500, 10000], [0, 1500000]].map(amounts);
  return [...times, ...numbers];
}
"""


def test_the_labels_of_an_axis_are_of_one_kind(browser: Browser) -> None:
    with telling(states.calm()) as told, looking(browser, told.url) as view:
        assert view.page.evaluate(AXES) == [
            ["12:00:00", "12:00:15"],
            ["12:00", "12:01"],
            ["0", "500"],
            ["0", "2.5 k", "7.5 k", "10 k"],
            ["0", "1.5 M"],
        ]


def test_it_is_reached_and_left_by_keyboard(browser: Browser) -> None:
    with telling(states.several()) as told, looking(browser, told.url) as view:
        view.page.keyboard.press("Tab")
        assert view.text(":focus") == "Skip to how it stands"
        view.page.keyboard.press("Tab")
        view.page.keyboard.press("Tab")
        assert "hall-climate" in view.text(":focus")
        view.page.keyboard.press("Enter")
        view.until("Nothing gets through to away (MQTT)")


def test_it_is_small_and_names_no_outside_host() -> None:
    files = {name: find(name) for name in [*NAMES, *CHART]}
    assert sum(len(found[0]) for found in files.values() if found) < 200_000
    for name in NAMES:
        text = (FOLDER / name).read_text()
        assert set(re.findall(r"https?://[^\s\"'>]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_chart_library_is_the_file_that_its_author_publishes() -> None:
    """`youplot` carries uPlot 1.6.31; this is the hash of `dist/uPlot.iife.min.js` there."""
    found = find("uplot.js")
    assert found is not None
    published = "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2"
    assert hashlib.sha256(found[0]).hexdigest() == published


def changed(change: Callable[[Any, float], object]) -> State:
    """The calm state with something else in it."""
    state = states.calm()
    change(states.pipeline(state), state["process"]["now"])
    return state


def lost(kind: str, part: str = "sink:lake") -> Callable[[Any, float], object]:
    def change(p: Any, now: float) -> None:
        p["losses"] = [
            {"part": part, "kind": kind, "reason": "why", "rows": 7, "bytes": 70}
            | {"first": 1, "last": 7, "first_time": now - 60, "last_time": now - 2}
        ]

    return change


def shut(why: str) -> Callable[[Any, float], object]:
    return lambda p, now: p["links"]["away"].update(state="down", since=now - 9, why=why)


RULES: dict[str, tuple[Callable[[Any, float], object], str, str]] = {
    "full": (lambda p, _: p["outbox"].update(full=True), "outbox is full", "Not here: nothing"),
    "full, drops": (
        lambda p, _: p["outbox"].update(full=True, when_full="drop_oldest"),
        "outbox is full",
        "Yes. The oldest rows are dropped",
    ),
    "no progress": (lambda p, _: p.update(healthy=False, silence=90), "no progress for 90 s", "No"),
    "no file": (lambda p, _: p.update(waits_for="lookup 'a.csv': gone"), "'a.csv': gone.", "Not"),
    "starting": (lambda p, _: p.update(running=False), "is not running", "No."),
    "no disk": (lambda p, _: p["outbox"].update(disk_problem="no inodes"), "no inodes", "Not what"),
    "disk hangs": (lambda p, now: p.update(seen=now - 40), "has not answered for", "Not what"),
    "no broker": (
        lambda p, _: p["source"].update(connected=False, url="mqtt://x", problem="refused"),
        "Nothing comes in: no connection to mqtt://x.",
        "No.",
    ),
    "dropped": (lost("dropped"), "7 rows were dropped: why.", "Yes: 7 rows."),
    "damaged": (lost("damaged"), "7 rows were damaged on disk: why.", "Yes: 7 rows."),
    "late": (lost("late", "lake/window"), "7 rows were too late", "Yes: 7 rows."),
    "failed": (lost("failed", "pipeline"), "Rows fail in an operator: why.", "Yes: 7 rows"),
    "refused": (
        lambda p, now: p["sinks"]["lake"].update(
            quarantined_rows=3, refused=[{"reason": "large", "rows": 3, "last": now - 5}]
        ),
        "lake (files) refused 3 rows: large.",
        "Not yet.",
    ),
    "in a file": (
        lambda p, now: (
            lost("rejected", "source")(p, now),
            p["rejects"].append(LINE | {"last": now}),
        ),
        "What comes from in/a.csv cannot be read: why.",
        "Yes, from there: 7 messages",
    ),
    "long ago": (
        lambda p, now: (lost("dropped")(p, now), p["losses"][0].update(last_time=now - 9e4)),
        "All is well",
        "Not now. 7 rows in former times",
    ),
}
LINE = {"reason": "why", "topic": "in/a.csv:31", "rows": 7, "sample": "x"}


def test_every_rule_says_what_and_whether_data_is_lost(browser: Browser) -> None:
    with telling(states.calm()) as told, looking(browser, told.url) as view:
        for name, (change, what, whether) in RULES.items():
            told.tell(changed(change))
            view.until(what, f"Is data lost? {whether}")
            assert not {"undefined", "NaN"} & set(view.text("body").split()), name


def test_a_source_that_is_away_is_told_with_since_when_and_why(browser: Browser) -> None:
    problem = "mqtt://x: refused; does it run?"
    state = changed(
        lambda p, now: p["source"].update(
            connected=False, url="mqtt://x", problem=problem, since=now - 600
        )
    )
    with telling(state) as told, looking(browser, told.url) as view:
        text = view.until("no connection to mqtt://x. Since", "10 min ago")
        assert text.endswith("The reason given refused; does it run?")


ADVICE = {
    "the connection broke (ConnectionClosedError)": "Check the network of this machine",
    "S3 refused access (AccessDenied)": "lack the right that the reason names",
    "The security token is expired (ExpiredToken)": "Check the credentials of this machine",
    "there is no bucket 'lake' (NoSuchBucket)": "Create what is missing there",
    "certificate verify failed: certificate has expired": "Check the clock of this machine",
    "out/lake: No space left on device": "Check the disk",
}


def test_what_to_do_follows_from_the_reason_that_was_given(browser: Browser) -> None:
    with telling(states.calm()) as told, looking(browser, told.url) as view:
        for why, todo in ADVICE.items():
            told.tell(changed(shut(why)))
            assert todo in view.until(why), why
