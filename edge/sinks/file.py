"""Files in a folder on this machine, one per parcel, each whole or not there."""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import aiofiles
import aiofiles.os
import polars as pl
from pydantic import Field, PrivateAttr

from edge.codec import Compression, encode_packed
from edge.component import Stream
from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.outbox.packed import PACKED, sent_bytes
from edge.outbox.room import make_folder, sync_folder
from edge.sinks import Receipt
from edge.sinks.partition import Partitioned


class FileSink(Partitioned):
    """Writes one file per parcel below a folder: ndjson, csv, parquet or json, Hive partitions.

    ```yaml
    file:
      path: out/lake
      format: parquet
      partition: [date]
    ```

    A file appears under its name once it is complete and safe on the disk. Sending a parcel again
    finds its file and leaves it. A full or missing disk is waited for.
    """

    text_compression: ClassVar[Compression] = "none"
    folder_limit: ClassVar[int] = 255

    path: Path = Field(description="Folder of the files; relative to the folder of the definition.")
    _root: Path = PrivateAttr(Path())

    def bind(self, columns: pl.Schema | None, stream: Stream, identity: bool, order: str) -> None:
        """Check the partition columns; the folder is made when the first parcel comes."""
        super().bind(columns, stream, identity, order)
        self._root = stream.folder / self.path

    def _body(self, frame: pl.DataFrame) -> tuple[bytes, Mapping[str, Any]]:
        """Plain text waits in the outbox as zstd: a tenth of the bytes written, and of the room."""
        if self.format == "parquet" or self._compression() != "none":
            return super()._body(frame)
        return encode_packed(frame, self.format), PACKED

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Write the files; LinkDown when none of them can be written."""
        return await self._send_in_turn(parcels)

    async def _send_one(self, parcel: Parcel) -> Receipt:
        place = self._root / parcel.key
        content = sent_bytes(parcel.body, parcel.attributes)
        try:
            if not await aiofiles.os.path.exists(place):
                await _write_whole(place, content)
                return Receipt([parcel.id])
            # Other bytes: the outbox is a restored copy that counts anew what was already sent.
            same = await asyncio.to_thread(_holds, place, content)
            # Its name may not be safe yet: the try that wrote it may have ended right there.
            await asyncio.to_thread(sync_folder, place.parent)
        except OSError as error:
            raise LinkDown(
                f"cannot write {place}: {error.strerror}; make room, or mend the disk or its"
                " permissions"
            ) from error
        return Receipt([parcel.id]) if same else Receipt(rekey=[parcel.id])


async def _write_whole(place: Path, content: Iterable[bytes]) -> None:
    """Write a file so that after a power cut it is there with all its bytes, or not at all."""
    await asyncio.to_thread(make_folder, place.parent)
    # Always the same name: what a crash left behind is written over by the next try.
    unfinished = place.with_name(f".{place.name}.part")
    async with aiofiles.open(unfinished, "wb") as file:
        await file.writelines(content)
        await file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    await aiofiles.os.rename(unfinished, place)
    await asyncio.to_thread(sync_folder, place.parent)


def _holds(place: Path, content: Iterable[bytes]) -> bool:
    """Whether a file consists of these bytes."""
    with place.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in content) and not file.read(1)
