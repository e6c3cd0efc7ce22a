"""States that the page must show well, made from the example that a real processor gave."""

import json
import math
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

State = dict[str, Any]

EXAMPLE = Path(__file__).parents[1] / "dashboard" / "state.json"
HOUR = 3600.0
MIB = 2**20


def calm() -> State:
    """All is well: two links that are up, three keys, an outbox with room."""
    state: State = json.loads(EXAMPLE.read_text())
    now = time.time()
    state["process"] |= {"now": now, "started": now - 5 * HOUR}
    state["log"] = []
    p = pipeline(state)
    p |= {"site": "north", "seen": None}
    p["losses"], p["rejects"] = [], []
    for stage in p["flow"]["stages"]:
        stage["problem"] = None
    read = next(line for line in p["ledger"] if line["part"] == "source")
    read |= {"left": {"read": 30}, "right": {"taken": 30, "rejected": 0}}
    for name in p["links"]:
        _open(p, name, now)
    p["outbox"] |= {
        "bytes": 50 * MIB,
        "max_bytes": 1024 * MIB,
        "hours_until_full": None,
        "when_full": "block",
        "history": [
            [now - 5 * HOUR + 60 * n, round((48 + 2 * math.sin(n / 9)) * MIB), 40 * (n % 7)]
            for n in range(300)
        ],
    }
    p["newest"]["rows"] = [row(n, now) for n in range(3)]
    return state


def pipeline(state: State) -> Any:
    (only,) = state["pipelines"]
    return only


def _open(p: Any, name: str, now: float) -> None:
    change = {"at": now - 5 * HOUR, "state": "up", "why": None}
    p["links"][name] |= {
        "state": "up",
        "since": now - 5 * HOUR,
        "why": None,
        "next_try": None,
        "retries": 0,
        "last_delivery": now - 2,
        "timeline": [change],
    }
    p["sinks"][name] |= {"buffered_rows": 0, "oldest_seconds": None, "quarantined_rows": 0}


def row(number: int, now: float) -> Any:
    """The newest of one key, with a line that moves."""
    line = [round(20 + number % 7 + math.sin((number + n) / 3), 2) for n in range(30)]
    return {
        "key": [f"press-{number}"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "received": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "values": {"temp": line[-1], "status": "ok"},
        "spark": line,
    }


def link_down(seconds: float = 252.0) -> State:
    """One of the two links has been down for some minutes."""
    state = calm()
    p, now = pipeline(state), state["process"]["now"]
    why = "Could not connect to the endpoint URL of queue 'alarms' (EndpointConnectionError)"
    p["links"]["away"] |= {"state": "down", "since": now - seconds, "why": why}
    p["links"]["away"] |= {"next_try": now + 23, "retries": 9, "last_delivery": now - seconds - 1}
    p["links"]["away"]["timeline"].append({"at": now - seconds, "state": "down", "why": why})
    p["sinks"]["away"] |= {"buffered_rows": 3412, "buffered_bytes": 48_000}
    p["sinks"]["away"] |= {"oldest_seconds": seconds, "link": "down", "link_reason": why}
    p["outbox"]["hours_until_full"] = 52.3
    return state


def rubbish() -> State:
    """One device sends what is no JSON."""
    state = calm()
    p, now = pipeline(state), state["process"]["now"]
    reason = "payload is not JSON"
    p["flow"]["stages"][0]["kind"] = "mqtt"
    p["losses"] = [
        {"part": "source", "kind": "rejected", "reason": reason, "rows": 412, "bytes": 9000}
        | {"first": None, "last": None, "first_time": now - 130, "last_time": now - 1}
    ]
    topic, sample = "plant/line-1/press-7/temperature", '{"ts": 17000000, "temp": \x00\x07##'
    p["rejects"] = [
        {"reason": reason, "topic": topic, "rows": 412, "last": now - 1, "sample": sample}
    ]
    return state


def nearly_full() -> State:
    """A link is down for hours, and the outbox has little room left."""
    state = link_down(4 * HOUR)
    p, now = pipeline(state), state["process"]["now"]
    most = 64 * MIB
    p["outbox"] |= {"bytes": round(0.93 * most), "max_bytes": most, "hours_until_full": 0.4}
    p["outbox"]["history"] = [
        [
            now - 5 * HOUR + 60 * n,
            round(most * max(0.1, 0.93 * (n - 60) / 240)),
            90 * max(0, n - 60),
        ]
        for n in range(300)
    ]
    return state


def unbalanced() -> State:
    """Rows are missing in the accounts of a sink."""
    state = calm()
    line = next(each for each in pipeline(state)["ledger"] if each["part"] == "sink:lake")
    line["left"]["appended"] += 3
    line["balanced"] = False
    return state


def large(keys: int = 5000) -> State:
    """As many keys as a processor tells."""
    state = calm()
    p, now = pipeline(state), state["process"]["now"]
    p["newest"] |= {"total": keys, "rows": [row(n, now) for n in range(keys)]}
    return state


def empty() -> State:
    """Just started: nothing has been counted, looked at or delivered."""
    state = calm()
    p = pipeline(state)
    state["process"]["started"] = state["process"]["now"] - 1
    for stage in p["flow"]["stages"]:
        stage |= {"counters": {}, "rows_per_second": 0.0}
    for arrow in p["flow"]["arrows"]:
        arrow |= {"rows": 0, "rows_per_second": 0.0}
    nothing = {"p50": None, "p99": None, "count": 0}
    p["latency"] = {"durable": nothing, "delivered": nothing}
    p["ledger"], p["sinks"] = [], {}
    p["outbox"] |= {"bytes": None, "max_bytes": None, "history": []}
    p["newest"] |= {"total": 0, "rows": []}
    for link in p["links"].values():
        link |= {"state": "not tried", "since": None, "timeline": [], "last_delivery": None}
    return state


def several() -> State:
    """Two pipelines in one process, the second one with a problem."""
    state = calm()
    other = deepcopy(pipeline(link_down())) | {"pipeline": "hall-climate"}
    state["pipelines"].append(other)
    return state
