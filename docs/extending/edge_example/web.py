"""`web`: parcels by HTTP."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Sequence

import polars as pl
from pydantic import Field, PrivateAttr

from edge import Sink
from edge.codec import rows_as_json
from edge.component import Stream
from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.sinks import Encoded, Receipt, split_id

TIMEOUT = 10.0  # seconds; the link backs off and tries again


class WebSink(Sink):
    """Puts each parcel under a URL of its own, as NDJSON.

    ```yaml
    web:
      url: https://plant.example/readings
    ```

    A PUT of the same parcel has the same URL and the same bytes, so a repeat changes nothing. 4xx
    answers refuse a parcel for good, but for 408 and 429; anything else is tried again.
    """

    url: str = Field(description="What every URL starts with.", pattern=r"^https?://")

    _identity: bool = PrivateAttr(True)

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """Opens nothing: the processor starts without a network."""
        self._identity = identity

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """One parcel; its key has the numbers of its first and last row, which never come again."""
        first, last = split_id(frame.item(0, "edge_id")), split_id(frame.item(-1, "edge_id"))
        rows = frame if self._identity else frame.drop("edge_id")
        key = f"{first.path}/{first.outbox}-{first.sequence}-{last.sequence}"
        body = b"\n".join(rows_as_json(rows))
        return Encoded([Parcel(key, first.sequence, last.sequence, frame.height, body)])

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """In a thread, so that nothing else waits for the network."""
        return await asyncio.to_thread(self._put_all, parcels)

    def _put_all(self, parcels: Sequence[Parcel]) -> Receipt:
        delivered: list[int] = []
        refused: dict[int, str] = {}
        for parcel in parcels:
            try:
                self._put(parcel)
                delivered.append(parcel.id)
            except urllib.error.HTTPError as error:
                if error.code not in range(400, 500) or error.code in (408, 429):
                    return self._stopped(delivered, refused, f"{error.code} {error.reason}")
                refused[parcel.id] = f"{error.code} {error.reason}"
            except OSError as error:
                return self._stopped(delivered, refused, str(error))
        return Receipt(delivered, refused)

    def _put(self, parcel: Parcel) -> None:
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/{parcel.key}",
            data=parcel.body,
            headers={"Content-Type": "application/x-ndjson"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            pass

    def _stopped(self, delivered: list[int], refused: dict[int, str], why: str) -> Receipt:
        """What is in neither goes again; if nothing went, the link is down."""
        problem = f"{self.url} cannot be reached: {why}; look at its log and at the way there"
        if not delivered and not refused:
            raise LinkDown(problem)
        return Receipt(delivered, refused, problem=problem)
