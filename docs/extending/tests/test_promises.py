"""The parts of this package keep what every part of edge promises."""

import http.server
import math
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from edge import Record, Sink, Source
from edge.clock import Clock
from edge.component import Stream
from edge.promises import OperatorPromises, SinkPromises, SourcePromises
from edge.promises.sink import rows
from edge.sources import Batch
from edge_example.rate import Rate
from edge_example.sine import SineSource
from edge_example.web import WebSink

START = datetime(2026, 1, 1, tzinfo=UTC)


class TestSine(SourcePromises):
    def build(self, folder: Path) -> Source:
        source = SineSource(every="1ms", rows=20)
        source.bind(Record(), Stream(), "edge-test", Batch(rows=1), Clock())
        return source


class TestRate(OperatorPromises):
    def make(self) -> tuple[Rate, pl.Schema]:
        operator = Rate(column="value")
        return operator, operator.bind(self.rows().schema, Stream("ts", ("device",)))

    def rows(self) -> pl.DataFrame:
        values = [1.0, 2.0, None, 4.0, math.nan, 6.0, 3.0, 3.0, -1.0, 0.0]
        return pl.DataFrame(
            {
                "ts": [START + timedelta(seconds=n // 2 * (1 if n != 8 else 0)) for n in range(20)],
                "device": ["a", "b", None, "a"] * 5,
                "value": values * 2,
            }
        )

    def test_it_is_change_by_time(self) -> None:
        operator, _ = self.make()
        times = [START, START + timedelta(seconds=2), START + timedelta(seconds=2)]
        frame = pl.DataFrame({"ts": times, "device": ["a"] * 3, "value": [1.0, 5.0, 9.0]})
        assert operator.process(frame)["rate"].to_list() == [None, 2.0, None]


class TestWeb(SinkPromises):
    _server: http.server.ThreadingHTTPServer | None = None

    def start(self, folder: Path) -> Sink:
        self._held: dict[str, bytes] = {}
        self._port = 0
        self.mend()
        sink = WebSink(url=f"http://127.0.0.1:{self._port}/in")
        sink.bind(rows(1).schema, Stream("ts"), identity=True, order="none")
        return sink

    def holds(self) -> Mapping[str, object]:
        return dict(self._held)

    def cut(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def mend(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), self._answer())
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    stop = cut

    def _answer(self) -> type[http.server.BaseHTTPRequestHandler]:
        held = self._held

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                held[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Answer
